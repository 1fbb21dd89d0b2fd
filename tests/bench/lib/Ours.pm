# Our own targets: httpd with the processes and threads that its package sets, CustomLog, mod_status'
# counters, log level warn, and the module's defaults. MaxMemFree is left to httpd's default except
# where idle sessions are counted: with `MaxMemFree 8` Debian's APR gives much of a pool's memory back
# at once, by munmap, and takes it anew by mmap for the next mail.
package Ours;

use strict;
use warnings;
use Cwd qw(abs_path);
use Fetch;
use File::Basename qw(dirname);
use File::Path qw(make_path);
use FreePort;
use IO::Socket::INET;
use OwnHttpd;
use ProcessTree;
use SmallFile;
use TestCA;

my $here = abs_path(dirname(__FILE__));

# Debian's mods-available/mpm_*.conf.
my $threaded = <<'CONF';
StartServers 2
MinSpareThreads 25
MaxSpareThreads 75
ThreadLimit 64
ThreadsPerChild 25
MaxRequestWorkers 150
MaxConnectionsPerChild 0
CONF
my %stock = (event => $threaded, worker => $threaded, prefork => <<'CONF');
StartServers 5
MinSpareServers 5
MaxSpareServers 10
MaxRequestWorkers 150
MaxConnectionsPerChild 0
CONF

sub module { $ENV{MODULE} // "$Fetch::build/mod_nssmtpd.so" }

# Whether the module knows this word: a directive or a hook that it may have or not.
sub knows {
    my ($word) = @_;
    open my $in, '<:raw', module() or return 0;
    local $/;
    return index(scalar <$in>, "$word\0") >= 0;
}

# Room for idle sessions, for three quarters of them in each of the first two children; stock is 2.
sub _room {
    my ($n) = @_;
    return '' if !$n;
    my $factor = 20 + int 0.75 * $n / 25;
    return "AsyncRequestWorkerFactor $factor\nMaxMemFree 8\n";
}

sub build {
    my ($c, $mpm, %a) = @_;
    my $h = OwnHttpd->new(
        mpm => $mpm, module => module(), log_level => 'warn',
        modules => ['proxy', @{ $a{modules} // [] }],
        main => $stock{$mpm} . ($mpm eq 'event' ? _room($c->{idle}) : '') . ($a{main} // ''),
        hosts => { mail => 'SmtpdEngine on' . "\nSmtpdRelay smtp://127.0.0.1:" . $c->{sink}->port . "\n"
            . "SmtpdSpool directory=%DIR%/spool\n"
            . ($c->{idle} ? "SmtpdMaxConnections 0 0\nSmtpdTimeout command=600\n" : '') . ($a{mail} // '') });
    $h->write_file('policy.lua', slurp("$here/policy.lua")); # the tree may be where only root can read it
    return $h;
}

sub run {
    my ($c, $mpm, %a) = @_;
    my $h = build($c, $mpm, %a)->start;
    my @beside = @{ $a{beside} // [] };
    return { port => $h->port('mail'), trees => [ProcessTree->of($h->pid), @beside],
        children => sub { scalar(my @all = $h->children) }, said => sub { substr $h->log('error.log'), -1500 },
        stop => sub { $h->stop; $_->stop for @beside } };
}

sub tls {
    my ($c) = @_;
    my $ca = TestCA->new(dir => $c->{dir});
    my $pair = $ca->issue('mail', names => ['localhost']);
    return run($c, 'event', modules => [qw(socache_shmcb ssl)],
        main => "SSLSessionCache shmcb:%DIR%/runtime/sessions(512000)\n",
        mail => "SSLEngine on\nSSLCertificateFile $pair->{cert}\nSSLCertificateKeyFile $pair->{key}\n");
}

# Options for a rcpt and a data phase in Lua.
sub phases {
    my ($scope) = @_;
    return (modules => ['lua'],
        mail => "LuaScope $scope\nLuaMapHandler \"^/smtp/(rcpt|data)\$\" %DIR%/policy.lua \$1\n");
}

sub lua { return run($_[0], 'event', phases('thread')) }

# A real clamd with a signature or two of its own, so that its memory is not the database's.
sub clamd {
    my ($c) = @_;
    my ($dir, $port) = ("$c->{dir}/clamd", FreePort::pick());
    make_path("$dir/db");
    chmod 0755, $dir, "$dir/db";
    spew("$dir/db/bench.hdb", "44d88612fea8a8f36de82e1278abb02f:68:Bench.Test\n");
    spew("$dir/clamd.conf", <<"CONF");
Foreground yes
DatabaseDirectory $dir/db
TCPAddr 127.0.0.1
TCPSocket $port
LogFile $dir/clamd.log
StreamMaxLength 100M
MaxThreads 20
CONF
    my $clamd = ProcessTree->start(command => ['clamd', '-c', "$dir/clamd.conf"], log => "$dir/output",
        port => $port);
    return run($c, 'event', beside => [$clamd], mail => "SmtpdScanner clamd 127.0.0.1:$port\n");
}

1;
