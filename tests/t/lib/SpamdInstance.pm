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
use Carp qw(croak);
use File::Path qw(make_path);
use File::Temp ();
use FreePort;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);

# Plugins that need no network; the others of the system's .pre files are left out.
my @plugins = qw(Bayes BodyEval Check HTMLEval HeaderEval MIMEEval RelayEval URIEval WLBLEval);

sub _program {
    my ($path) = grep { -x } map {"$_/spamd"} split(/:/, $ENV{PATH} // ''), '/usr/sbin', '/usr/bin';
    return $path;
}

# What keeps it from running here, in words; '' if nothing does.
sub missing { return _program() ? '' : 'spamd of SpamAssassin is not installed' }

sub new {
    my ($class, %a) = @_;
    my $self = bless { rules => '', options => [], timeout => 30, %a, owner => $$ }, $class;
    $self->{temp} = File::Temp->newdir('spamd.XXXXXX', TMPDIR => 1);
    $self->{dir} = "$self->{temp}";
    chmod 0755, $self->{dir};
    $self->{port} = FreePort::pick();
    make_path(map {"$self->{dir}/$_"} qw(etc state));
    $self->_write('etc/init.pre', join '', map {"loadplugin Mail::SpamAssassin::Plugin::$_\n"} @plugins);
    $self->_write('etc/local.cf', <<"CF" . $self->{rules});
dns_available no
skip_rbl_checks 1
bayes_path $self->{dir}/state/bayes
bayes_auto_learn 0
bayes_min_spam_num 1
bayes_min_ham_num 1
CF
    if ($> == 0) {
        ($self->{user}) = grep { getpwnam $_ } qw(www-data apache nobody);
        my (undef, undef, $uid, $gid) = getpwnam $self->{user};
        chown $uid, $gid, "$self->{dir}/state";
    }
    return $self;
}

sub port    { $_[0]{port} }
sub pid     { $_[0]{pid} }
sub address { "127.0.0.1:$_[0]{port}" }
sub socket  { "$_[0]{dir}/socket" }

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

sub log    { $_[0]->_read('log') }
sub output { $_[0]->_read('output') }

sub start {
    my ($self) = @_;
    defined(my $pid = fork) or croak "fork: $!";
    if (!$pid) {
        $ENV{HOME} = "$self->{dir}/state";
        open STDIN, '<', '/dev/null';
        open STDOUT, '>>', "$self->{dir}/output";
        open STDERR, '>&', \*STDOUT;
        exec _program(), '--local', '--nouser-config', '--allow-tell',
            "--siteconfigpath=$self->{dir}/etc", '--listen=' . $self->address,
            '--listen=' . $self->socket, '--socketmode=0666', '--max-children=3',
            '--min-children=2', "--syslog=$self->{dir}/log", @{ $self->{options} },
            $self->{user} ? "--username=$self->{user}" : ()
            or POSIX::_exit(127);
    }
    $self->{pid} = $pid;
    my $deadline = time + $self->{timeout};
    until ($self->_pongs) {
        my $gone = waitpid($pid, POSIX::WNOHANG()) == $pid;
        delete $self->{pid} if $gone;
        croak 'spamd did not start: ' . $self->output . $self->log if $gone || time > $deadline;
        sleep 0.05;
    }
    return $self;
}

sub _pongs {
    my ($self) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->port, Timeout => 5)
        or return 0;
    print {$s} "PING SPAMC/1.5\r\n\r\n";
    return (<$s> // '') =~ /PONG/;
}

sub stop {
    my ($self) = @_;
    my $pid = $self->{pid};
    return if !$pid || $self->{owner} != $$;
    kill TERM => $pid;
    my $deadline = time + $self->{timeout};
    until (waitpid($pid, POSIX::WNOHANG()) == $pid) {
        kill KILL => $pid if time > $deadline;
        sleep 0.02;
    }
    delete $self->{pid};
}

sub DESTROY { local ($?, $!, $@); $_[0]->stop }

1;
