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
use Carp qw(croak);
use File::Path qw(make_path);
use File::Temp ();
use FreePort;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);

sub _program {
    my ($name) = @_;
    my ($path) = grep { -x } map {"$_/$name"} split(/:/, $ENV{PATH} // ''), qw(/usr/sbin /usr/bin);
    return $path;
}

# What keeps it from running here, in words; '' if nothing does.
sub missing {
    my @missing = grep { !_program($_) } qw(rspamd redis-server);
    return @missing ? join(' and ', @missing) . ' not installed' : '';
}

sub new {
    my ($class, %a) = @_;
    my $self = bless { lua => '', config => '', password => 'none', timeout => 60, %a, owner => $$,
        pids => [] }, $class;
    $self->{temp} = File::Temp->newdir('rspamd.XXXXXX', TMPDIR => 1);
    $self->{dir} = "$self->{temp}";
    chmod 0755, $self->{dir};
    my %taken;
    for my $name (qw(port controller_port redis_port)) {
        do { $self->{$name} = FreePort::pick() } while $taken{ $self->{$name} }++;
    }
    make_path(map {"$self->{dir}/$_"} qw(state languages));
    $self->_write('tld.dat', "com\nnet\norg\ntest\n");
    $self->_write('rules.lua', $self->{lua});
    $self->_write('rspamd.conf', $self->_configuration);
    if ($> == 0) {
        ($self->{user}) = grep { getpwnam $_ } qw(www-data apache nobody);
        my (undef, undef, $uid, $gid) = getpwnam $self->{user};
        $self->{group} = getgrgid $gid;
        chown $uid, $gid, "$self->{dir}/state";
    }
    return $self;
}

sub port       { $_[0]{port} }
sub address    { "127.0.0.1:$_[0]{port}" }
sub controller { "127.0.0.1:$_[0]{controller_port}" }
sub pids       { @{ $_[0]{pids} } }

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

sub _write {
    my ($self, $name, $text) = @_;
    open my $out, '>', "$self->{dir}/$name" or croak "$self->{dir}/$name: $!";
    print {$out} $text;
    close $out or croak "$self->{dir}/$name: $!";
}

sub _read {
    my ($self, $name) = @_;
    open my $in, '<:raw', "$self->{dir}/$name" or return '';
    local $/;
    return scalar <$in> // '';
}

sub log    { $_[0]->_read('state/log') }
sub output { $_[0]->_read('output') }

sub _spawn {
    my ($self, @command) = @_;
    defined(my $pid = fork) or croak "fork: $!";
    if (!$pid) {
        chdir "$self->{dir}/state";
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', "$self->{dir}/output";
        open STDERR, '>&', \*STDOUT;
        exec @command or POSIX::_exit(127);
    }
    unshift @{ $self->{pids} }, $pid;
    return $pid;
}

# Asks until the answer to a line matches.
sub _wait {
    my ($self, $pid, $port, $line, $wanted) = @_;
    my $deadline = time + $self->{timeout};
    while (1) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Timeout => 5);
        if ($s) { print {$s} $line; return if (<$s> // '') =~ $wanted; }
        my $gone = waitpid($pid, POSIX::WNOHANG()) == $pid;
        $self->{pids} = [grep { $_ != $pid } @{ $self->{pids} }] if $gone;
        croak 'rspamd did not start: ' . $self->output . $self->log if $gone || time > $deadline;
        sleep 0.05;
    }
}

sub start {
    my ($self) = @_;
    my $redis = $self->_spawn(_program('redis-server'), '--port', $self->{redis_port},
        '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', '--dir', "$self->{dir}/state");
    $self->_wait($redis, $self->{redis_port}, "PING\r\n", qr/PONG/);
    my $pid = $self->_spawn(_program('rspamd'), '-f', '-c', "$self->{dir}/rspamd.conf",
        $self->{user} ? ('-u', $self->{user}, '-g', $self->{group}) : ());
    for my $port ($self->{port}, $self->{controller_port}) {
        $self->_wait($pid, $port, "GET /ping HTTP/1.1\r\nConnection: close\r\n\r\n", qr/ 200 /);
    }
    return $self;
}

sub stop {
    my ($self) = @_;
    return if $self->{owner} != $$;
    my $deadline = time + 20;
    while (defined(my $pid = shift @{ $self->{pids} })) {
        kill TERM => $pid;
        until (waitpid($pid, POSIX::WNOHANG()) == $pid) {
            kill KILL => $pid if time > $deadline;
            sleep 0.02;
        }
    }
}

sub DESTROY { local ($?, $!, $@); $_[0]->stop }

1;
