# Finds ports, of loopback or the given address, that are free now and that the kernel does not hand
# out by itself to outgoing connections, so that they stay free until the caller listens on them.
package FreePort;

use strict;
use warnings;
use IO::Socket::INET;

sub pick {
    my ($address) = @_;
    $address //= '127.0.0.1';
    for (1 .. 200) {
        my $port = 15000 + int rand 15000;
        my $s = IO::Socket::INET->new(
            LocalAddr => $address, LocalPort => $port, Proto => 'tcp', Listen => 1,
        ) or next;
        close $s;
        return $port;
    }
    die "no free port between 15000 and 30000 on $address\n";
}

1;
