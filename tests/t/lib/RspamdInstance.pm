# A real rspamd of its own: a worker and a controller on free loopback ports, and a redis for what
# it learns, all below one private directory, without DNS and without the rules of the system. It
# finds GTUBE, what Bayes says, and what the given Lua registers. It is run by whoever runs the
# test, by an unprivileged user where that is root, and stopped when the object goes.
#
#   RspamdInstance->missing and plan skip_all => RspamdInstance->missing;
#   my $rspamd = RspamdInstance->new(lua => $code, password => 'controller', config => $more);
#   $rspamd->start; $rspamd->address; $rspamd->controller; $rspamd->log; $rspamd->stop;
package RspamdInstance;

use strict;
use warnings;
use parent 'PrivateServer';
use FreePort;
use IO::Socket::INET;

# What keeps it from running here, in words; '' if nothing does.
sub missing {
    my @missing = grep { !PrivateServer::program($_) } qw(rspamd redis-server);
    return @missing ? join(' and ', @missing) . ' not installed' : '';
}

sub new {
    my ($class, %a) = @_;
    my $self = $class->SUPER::new(lua => '', config => '', password => 'none', timeout => 60,
        log => 'state/log', %a);
    my %taken = ($self->{port} => 1);
    for my $name (qw(controller_port redis_port)) {
        do { $self->{$name} = FreePort::pick() } while $taken{ $self->{$name} }++;
    }
    $self->user_directories(qw(state languages));
    $self->write_file('tld.dat', "com\nnet\norg\ntest\n");
    $self->write_file('rules.lua', $self->{lua});
    $self->write_file('rspamd.conf', $self->_configuration);
    return $self;
}

sub address    { "127.0.0.1:$_[0]{port}" }
sub controller { "127.0.0.1:$_[0]{controller_port}" }

# Languages and the list of top level domains take it seconds to load; nothing here needs them.
sub _configuration {
    my ($self) = @_;
    my $state = "$self->{dir}/state";
    return <<"CONF" . $self->{config};
options {
    pidfile = "$state/pid";
    cache_file = "$state/symbols";
    history_file = "$state/history";
    dynamic_conf = "$state/dynamic";
    tempdir = "$state";
    hs_cache_dir = "$state/";
    control_socket = "$state/control mode=0600";
    url_tld = "$self->{dir}/tld.dat";
    filters = "";
    local_addrs = [];
    dns { nameserver = ["127.0.0.1:$self->{redis_port}"]; timeout = 0.1s; retransmits = 1; }
}
lang_detection { languages = "$self->{dir}/languages"; }
logging { type = "file"; filename = "$state/log"; level = "info"; }
worker "normal" { bind_socket = "@{[ $self->address ]}"; count = 2; }
worker "controller" {
    bind_socket = "@{[ $self->controller ]}";
    count = 1;
    password = "$self->{password}";
    enable_password = "$self->{password}";
}
actions {
    reject = 15; rewrite_subject = 8; add_header = 6; greylist = 4; subject = "[SPAM] %s";
    quarantine { flags = ["no_threshold"]; }
    discard { flags = ["no_threshold"]; }
    wonder { flags = ["no_threshold"]; }
}
classifier "bayes" {
    tokenizer { name = "osb"; }
    cache { }
    new_schema = true;
    backend = "redis";
    servers = "127.0.0.1:$self->{redis_port}";
    min_tokens = 1;
    min_learns = 1;
    statfile { symbol = "BAYES_HAM"; spam = false; }
    statfile { symbol = "BAYES_SPAM"; spam = true; }
}
lua = "$self->{dir}/rules.lua";
CONF
}

sub prepare { chdir "$_[0]{dir}/state" }

# Asks until the answer to a line matches.
sub _wait {
    my ($self, $port, $line, $wanted) = @_;
    $self->wait_until(sub {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5) or return 0;
        print {$s} $line;
        return (<$s> // '') =~ $wanted;
    });
}

sub start {
    my ($self) = @_;
    $self->spawn(PrivateServer::program('redis-server'), '--port', $self->{redis_port},
        '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', "$self->{dir}/state");
    $self->_wait($self->{redis_port}, "PING\r\n", qr/PONG/);
    $self->spawn(PrivateServer::program('rspamd'), '-f', '-c', "$self->{dir}/rspamd.conf",
        $self->{user} ? ('-u', $self->{user}, '-g', $self->{group}) : ());
    for my $port ($self->{port}, $self->{controller_port}) {
        $self->_wait($port, "GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n", qr/ 200 /);
    }
    return $self;
}

1;
