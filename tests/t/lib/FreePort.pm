# Finds loopback ports that are free now and that the kernel does not hand out by itself to
# outgoing connections, so that they stay free until the caller listens on them.
package FreePort;

use strict;
use warnings;
use IO::Socket::INET;

sub pick {
    for (1 .. 200) {
        my $port = 15000 + int rand 15000;
        my $s = IO::Socket::INET->new(
            LocalAddr => '127.0.0.1', LocalPort => $port, Proto => 'tcp', Listen => 1,
        ) or next;
        close $s;
        return $port;
    }
    die "no free port between 15000 and 30000 on 127.0.0.1\n";
}

1;
