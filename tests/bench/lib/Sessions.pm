# Client sessions written here, for what smtp-source cannot do: STARTTLS, a set pace, and the time from
# the final dot to its reply. One process a session; commands one by one; kept connections.
#
#   my @times = Sessions::run($port, parallel => 20, mails => 4000, tls => 1);   # seconds, dot to 250
#   my @times = Sessions::run($port, parallel => 20, rate => 1000, seconds => 120);
package Sessions;

use strict;
use warnings;
use IO::Socket::INET;
use Net::SSLeay;
use POSIX ();
use Socket qw(IPPROTO_TCP TCP_NODELAY);
use Time::HiRes qw(sleep time);

our $message = 'Subject: ' . 'x' x 27 . "\r\n\r\n" . ('x' x 76 . "\r\n") x 52;
my @envelope = (["MAIL FROM:<a\@bench.test>\r\n", '250'], ["RCPT TO:<c\@bench.test>\r\n", '250'], ["DATA\r\n", '354']);
my $context;

# Writes, and reads one reply; dies when it has another code. $ssl where the session is encrypted.
sub exchange {
    my ($s, $text, $code, $ssl) = @_;
    for (my $at = 0; $at < length $text;) {
        my $n = $ssl ? Net::SSLeay::write($ssl, $text) : syswrite $s, $text, length($text) - $at, $at;
        die "cannot send: $!\n" if !defined $n || $n <= 0;
        $at += $n;
    }
    my ($said, $got) = ('');
    until (($got) = $said =~ /^(\d{3}) [^\n]*\n\z/m) {
        my $n = $ssl ? length($said .= Net::SSLeay::read($ssl, 16384) // '') : sysread $s, $said, 16384, length $said;
        die "connection ended after '$said'\n" if !$n;
    }
    return if $got eq $code;
    die "wanted $code, got: $said\n";
}

sub _open {
    my ($port, $tls) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or die "port $port: $@\n";
    setsockopt $s, IPPROTO_TCP, TCP_NODELAY, 1;
    exchange($s, '', '220');
    exchange($s, "EHLO bench.test\r\n", '250');
    return ($s) if !$tls;
    exchange($s, "STARTTLS\r\n", '220');
    my $ssl = Net::SSLeay::new($context);
    Net::SSLeay::set_fd($ssl, fileno $s);
    Net::SSLeay::connect($ssl) == 1 or die 'handshake: ' . Net::SSLeay::print_errs('') . "\n";
    exchange($s, "EHLO bench.test\r\n", '250', $ssl);
    return ($s, $ssl);
}

# One session: so many mails, or mails at their times until the end. Gives seconds from dot to 250.
sub _session {
    my ($port, %a) = @_;
    my ($s, $ssl) = _open($port, $a{tls});
    my ($began, @took) = (time + ($a{offset} // 0));
    while (1) {
        last if $a{each} ? @took >= $a{each} : @took >= $a{pace} * $a{seconds};
        if ($a{pace}) {
            my $wait = $began + @took / $a{pace} - time;
            sleep $wait if $wait > 0;
        }
        exchange($s, @$_, $ssl) for @envelope;
        my $dot = time;
        exchange($s, "$message.\r\n", '250', $ssl);
        push @took, time - $dot;
    }
    exchange($s, "QUIT\r\n", '221', $ssl);
    Net::SSLeay::free($ssl) if $ssl;
    return @took;
}

sub _child {
    my ($say, $gate, $port, %a) = @_;
    my @took;
    alarm 100 + ($a{seconds} // 200);
    sysread $gate, my $nothing, 1;
    my $ok = eval { @took = _session($port, %a); 1 };
    my $text = $ok ? join(' ', map { sprintf '%.6f', $_ } @took) : "! $@";
    while (length $text) { my $n = syswrite $say, $text or last; substr $text, 0, $n, '' }
    POSIX::_exit($ok ? 0 : 1);
}

# So many sessions at once; `look` is called every second meanwhile. Dies when one of them failed.
sub run {
    my ($port, %a) = @_;
    $context //= Net::SSLeay::CTX_new() || die "no TLS context\n" if $a{tls};
    my $n = $a{parallel};
    $a{each} = POSIX::ceil($a{mails} / $n) if $a{mails};
    $a{pace} = $a{rate} / $n if $a{rate};
    pipe my $gate, my $open or die "pipe: $!\n";
    my @running = map {
        pipe my $from, my $say or die "pipe: $!\n";
        my $pid = fork // die "fork: $!\n";
        if (!$pid) { close $open; _child($say, $gate, $port, %a, $a{pace} ? (offset => $_ / $a{rate}) : ()) }
        [$from, $pid];
    } 0 .. $n - 1;
    my $until = time + ($a{seconds} // 0);
    close $open;
    while ($a{look} && (my $left = $until - time) > 0.1) { $a{look}->(); sleep($left < 1 ? $left : 1) }
    my (@took, @failed);
    for (@running) {
        my $said = do { local $/; readline $_->[0] } // '! it ended';
        waitpid $_->[1], 0;
        $said =~ /^!/ ? push @failed, $said : push @took, split ' ', $said;
    }
    die @failed . " of $n sessions failed, $failed[0]\n" if @failed;
    return @took;
}

# The value below which this share of them is.
sub quantile {
    my ($share, @values) = @_;
    my @sorted = sort { $a <=> $b } @values;
    return $sorted[POSIX::floor($share * $#sorted)];
}

1;
