# What suites ask of the httpd under test: where a host listens, an SMTP client connected to it,
# its logs, and waiting for something to become true instead of sleeping.
package TestHost;

use strict;
use warnings;
use Apache::Test ();
use Apache::TestRequest ();
use Exporter qw(import);
use SMTPClient;
use SmallFile;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(client hostport server_root slurp spew wait_for log_lines log_line);

sub hostport {
    my ($host) = @_;
    local $Apache::TestRequest::Module = $host;
    my $hostport = Apache::TestRequest::hostport(Apache::Test::config());
    $hostport =~ s/^[^:]*/127.0.0.1/;
    return $hostport;
}

# Connected, greeted, and with ehlo => 'name' also introduced.
sub client {
    my ($host, %a) = @_;
    my $ehlo = delete $a{ehlo};
    my $c = SMTPClient->new(hostport => hostport($host), %a);
    $c->cmd("EHLO $ehlo") if defined $ehlo;
    return $c;
}

sub server_root { Apache::Test::vars('serverroot') }

# Asks again and again until the block says yes, for at most $seconds (10); returns what it said.
sub wait_for (&;$) {
    my ($condition, $seconds) = @_;
    my $deadline = time + ($seconds // 10);
    while (1) {
        my $value = $condition->();
        return $value if $value || time > $deadline;
        sleep 0.02;
    }
}

# Lines of a log below t/logs that match.
sub log_lines {
    my ($name, $pattern) = @_;
    my $file = Apache::Test::vars('t_logs') . "/$name";
    return -e $file ? grep { $_ =~ $pattern } split /\n/, slurp($file) : ();
}

# What smtp_log says of the mail from that address, once it does.
sub log_line {
    my ($from) = @_;
    return wait_for { join "\n", log_lines('smtp_log', qr/ from="\Q$from\E"/) } 5;
}

1;
