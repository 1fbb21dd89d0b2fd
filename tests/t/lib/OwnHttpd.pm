# An httpd of a test's own: a private directory, free ports, one MPM, only the modules it names. For
# what Apache::Test's server cannot be put through: restarts, killed children, bad configuration,
# benchmarks. As root its children run as an unprivileged user. It is stopped when the object goes.
#
#   my $h = OwnHttpd->new(mpm => 'event', hosts => {
#       mail => "SmtpdEngine on\nSmtpdRelay discard:\n",      # a <VirtualHost> on a port of its own
#   }, main => "ThreadsPerChild 8\n", modules => ['proxy'])->start;
#   SMTPClient->new(port => $h->port('mail')); my $c = $h->client('mail');   # has said EHLO
#   $h->graceful; $h->signal('TERM'); $h->children; $h->log('error.log'); $h->lines(qr/NS0042/); $h->stop;
#   my ($ok, $said) = OwnHttpd->new(main => 'SmtpdMaxErrors none')->check;     # httpd -t
package OwnHttpd;

use strict;
use warnings;
use parent 'PrivateServer';
use Carp qw(croak);
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use FreePort;
use IO::Socket::INET;
use POSIX ();
use SMTPClient;

my @always = qw(authn_core authz_core dir env log_config status unixd watchdog);
my ($httpd, $libexec, %taken);

sub _ask { chomp(my $answer = `apxs -q $_[0]`); return $answer }

sub new {
    my ($class, %a) = @_;
    $httpd   ||= _ask('SBINDIR') . '/' . _ask('PROGNAME');
    $libexec ||= _ask('LIBEXECDIR');
    my $self = $class->SUPER::new(
        mpm => $ENV{TEST_MPM} // 'event', main => '', hosts => {}, modules => [], without => [],
        module => $ENV{MODULE} // abs_path(dirname(__FILE__) . '/../../../build/mod_nssmtpd.so'),
        log_level => 'warn nssmtpd:info', log => 'error.log', port => {}, %a,
    );
    -r $self->{module} or croak "no module at $self->{module}; run make first";
    $self->user_directories(qw(runtime spool maildir htdocs));
    $self->port($_) for keys %{ $self->{hosts} };
    return $self;
}

sub port {
    my ($self, $name) = @_;
    return $self->{port}{$name} ||= do {
        my $port = FreePort::pick();
        $port = FreePort::pick() while $taken{$port}++;
        $port;
    };
}

# %DIR% and %PORT:name% may stand in main and hosts.
sub _fill {
    my ($self, $text) = @_;
    $text =~ s/%DIR%/$self->{dir}/g;
    $text =~ s/%PORT:(\w+)%/$self->port($1)/ge;
    return $text;
}

sub configuration {
    my ($self) = @_;
    my %without = map { $_ => 1 } @{ $self->{without} };
    my $text = '';
    for my $name ("mpm_$self->{mpm}", @always, @{ $self->{modules} }) {
        my $file = "$libexec/mod_$name.so";
        $text .= "LoadModule ${name}_module $file\n" if !$without{$name} && -r $file;
    }
    $text .= "LoadModule nssmtpd_module $self->{module}\n" unless $without{nssmtpd};
    $text .= "User $self->{user}\nGroup $self->{group}\n" if $self->{user};
    $text .= <<'CONF';
ServerRoot %DIR%
ServerName localhost
PidFile %DIR%/httpd.pid
DefaultRuntimeDir %DIR%/runtime
DocumentRoot %DIR%/htdocs
ErrorLog %DIR%/error.log
LogFormat "%>s \"%r\" helo=\"%{SMTP_HELO}e\" from=\"%{SMTP_FROM}e\" reply=\"%{SMTP_REPLY}e\"" smtp
CustomLog %DIR%/smtp.log smtp
CONF
    $text .= "LogLevel $self->{log_level}\n" . $self->{main} . "\n";
    $text .= "Listen 127.0.0.1:%PORT:$_%\n" for sort keys %{ $self->{hosts} };
    for my $name (sort keys %{ $self->{hosts} }) {
        $text .= "<VirtualHost 127.0.0.1:%PORT:$name%>\nServerName $name.test\n"
            . "$self->{hosts}{$name}\n</VirtualHost>\n";
    }
    return $self->_fill($text);
}

sub _write { my ($self) = @_; return $self->write_file('httpd.conf', $self->configuration) }

sub _preload { return $ENV{SANITIZE_PRELOAD} ? (LD_PRELOAD => $ENV{SANITIZE_PRELOAD}) : () }

# httpd -t on it: (true if it is valid, everything that was said there and in the error log).
sub check {
    my ($self, @options) = @_;
    my $file = $self->_write;
    local %ENV = (%ENV, _preload());
    my @command = ($httpd, '-f', $file, @options ? @options : '-t');
    open my $from, '-|', join(' ', map {"'$_'"} @command) . ' 2>&1' or croak "$httpd: $!";
    my $said = do { local $/; <$from> } // '';
    close $from;
    my $ok = $? == 0;
    return ($ok, $said . $self->log);
}

sub prepare {
    POSIX::setsid();
    %ENV = (%ENV, _preload());
}

sub start {
    my ($self) = @_;
    $self->spawn($httpd, '-f', $self->_write, '-DFOREGROUND');
    return $self->wait_until(sub { $self->_listens });
}

# Its children accept: a connection to each port is taken, and the pid file is there.
sub _listens {
    my ($self) = @_;
    return 0 unless -s "$self->{dir}/httpd.pid" && $self->children;
    for my $name (keys %{ $self->{hosts} }) {
        IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->port($name)) or return 0;
    }
    return 1;
}

sub children {
    my ($self) = @_;
    my $pid = $self->pid;
    my $file = "/proc/$pid/task/$pid/children";
    open my $in, '<', $file or return;
    return split ' ', <$in> // '';
}

sub signal   { my ($self, $name) = @_; kill $name => $self->pid; return $self }
sub graceful { $_[0]->signal('USR1') }

# Lines of the error log that match.
sub lines { my ($self, $pattern) = @_; return grep { $_ =~ $pattern } split /\n/, $self->log }

# What the logs have of children that crashed.
sub crashes {
    my ($self) = @_;
    return grep {/exit signal|Sanitizer|runtime error/} split /\n/, $self->log . $self->output;
}

sub client {
    my ($self, $host, %a) = @_;
    my $c = SMTPClient->new(port => $self->port($host), %a);
    $c->cmd('EHLO me.test') if $a{greeting} // 1;
    return $c;
}

sub stop {
    my ($self) = @_;
    return if !$self->pid || $self->{owner} != $$;
    $self->signal('TERM');
    kill KILL => $self->pid, $self->children if !$self->wait_end(15);
    $self->SUPER::stop;
}

1;
