# A real SpamAssassin daemon of its own: rules of the system, but configuration, Bayes database and
# log below one private directory, local tests only, on a free loopback port and a unix socket. It
# is run by whoever runs the test, by an unprivileged user where that is root, and stopped when the
# object goes.
#
#   SpamdInstance->missing and plan skip_all => SpamdInstance->missing;
#   my $spamd = SpamdInstance->new(rules => "header ASKED Subject =~ /please/\nscore ASKED 6\n");
#   $spamd->start; $spamd->address; $spamd->socket; $spamd->log; $spamd->stop;
#
# Bayes answers from the first mail of each kind on, and learns by TELL only.
package SpamdInstance;

use strict;
use warnings;
use parent 'PrivateServer';
use IO::Socket::INET;

# Plugins that need no network; the others of the system's .pre files are left out.
my @plugins = qw(Bayes BodyEval Check HTMLEval HeaderEval MIMEEval RelayEval URIEval WLBLEval);

# What keeps it from running here, in words; '' if nothing does.
sub missing { return PrivateServer::program('spamd') ? '' : 'spamd of SpamAssassin is not installed' }

sub new {
    my ($class, %a) = @_;
    my $self = $class->SUPER::new(rules => '', options => [], timeout => 30, %a);
    $self->write_file('etc/init.pre', join '', map {"loadplugin Mail::SpamAssassin::Plugin::$_\n"} @plugins);
    $self->write_file('etc/local.cf', <<"CF" . $self->{rules});
dns_available no
skip_rbl_checks 1
bayes_path $self->{dir}/state/bayes
bayes_auto_learn 0
bayes_min_spam_num 1
bayes_min_ham_num 1
CF
    $self->user_directories('state');
    return $self;
}

sub address { "127.0.0.1:$_[0]{port}" }
sub socket  { "$_[0]{dir}/socket" }

sub prepare { $ENV{HOME} = "$_[0]{dir}/state" }

sub start {
    my ($self) = @_;
    $self->spawn(PrivateServer::program('spamd'), '--local', '--nouser-config', '--allow-tell',
        "--siteconfigpath=$self->{dir}/etc", '--listen=' . $self->address, '--listen=' . $self->socket,
        '--socketmode=0666', '--max-children=3', '--min-children=2', "--syslog=$self->{dir}/log",
        @{ $self->{options} }, $self->{user} ? "--username=$self->{user}" : ());
    return $self->wait_until(sub { $self->_pongs });
}

sub _pongs {
    my ($self) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->port, Timeout => 5)
        or return 0;
    print {$s} "PING SPAMC/1.5\r\n\r\n";
    return (<$s> // '') =~ /PONG/;
}

1;
