# A name server on loopback, UDP and TCP on one port, with a zone of its own and, on order, bad
# manners. One forked process; also a program, for tests in other languages.
#
#   my $dns = FakeDNS->new(zone => <<'END');
#   example.test             MX    10 mail.example.test
#   mail.example.test        A     192.0.2.1
#   www.example.test         CNAME example.test
#   1.2.0.192.in-addr.arpa   PTR   mail.example.test
#   broken.test              *     !servfail
#   END
#   SmtpdNameServer 127.0.0.1:@{[ $dns->port ]}
#   $dns->queries;   # so far: "udp example.test MX", ..
#   $dns->stop;      # also done when the object goes
#
# A name with no line does not exist; one without the type asked for has no data. CNAMEs are
# followed. \DDD in a name is an octet. A value beginning with ! is what is done to questions of that
# type (*: any):
#   !servfail !refused !notimp !formerr   this code
#   !noedns      FORMERR, if the question has an OPT record
#   !silent      no reply; !tcpsilent: none over TCP
#   !noise       forged replies (other id, question, port; a few octets), then the right one
#   !malformed   an answer that claims to be longer than it is
# A reply that does not fit the asker's UDP size goes out empty and truncated.
#
# perl -Itests/t/lib tests/t/lib/FakeDNS.pm reads a zone from its input up to an empty line, prints
# its port, and serves until the input is closed.
package FakeDNS;

use strict;
use warnings;
use parent 'FakeServer';
use Carp qw(croak);
use FreePort;
use IO::Select;
use IO::Socket::INET;
use Socket qw(AF_INET AF_INET6 inet_pton);

my %type = (A => 1, CNAME => 5, PTR => 12, MX => 15, TXT => 16, AAAA => 28);
my %type_name = reverse %type;
my %rcode = (formerr => 1, servfail => 2, nxdomain => 3, notimp => 4, refused => 5);

sub new { my ($class, %a) = @_; return $class->SUPER::new(%a)->start }

sub queries { return split /\n/, $_[0]->read_file('queries') }

sub listeners {
    my ($self) = @_;
    for (1 .. 50) {
        my %at = (LocalAddr => '127.0.0.1', LocalPort => $self->{port});
        my $tcp = IO::Socket::INET->new(%at, Proto => 'tcp', Listen => 64, ReuseAddr => 1);
        my $udp = $tcp && IO::Socket::INET->new(%at, Proto => 'udp');
        return ($udp, $tcp) if $udp;
        $self->{port} = FreePort::pick();
    }
    croak "no port on 127.0.0.1 is free for both UDP and TCP: $!";
}

# ---- what follows runs in the server's process

# Until the handle, where there is one, is at its end.
sub _serve {
    my ($self, $udp, $tcp, $input) = @_;
    $self->_read_zone;
    open $self->{journal}, '>>', "$self->{dir}/queries" or die "queries: $!\n";
    $self->{journal}->autoflush(1);
    my ($select, %buffer) = (IO::Select->new($udp, $tcp, $input // ()));
    while (1) {
        for my $s ($select->can_read) {
            if ($s == $udp) {
                my $from = $s->recv(my $query, 65535);
                send $s, $_, 0, $from for $self->_replies('udp', $query, $from);
            }
            elsif ($s == $tcp) {
                my $client = $s->accept or next;
                $select->add($client);
                $buffer{$client} = '';
            }
            elsif (!sysread $s, $buffer{$s}, 65535, length($buffer{$s} // '')) {
                return if $input && $s == $input;
                $select->remove($s);
                delete $buffer{$s};
                close $s;
            }
            else {
                while ($s != ($input // 0) && $buffer{$s} =~ s/^(..)//s) {
                    my $n = unpack 'n', $1;
                    if (length $buffer{$s} < $n) { $buffer{$s} = $1 . $buffer{$s}; last }
                    syswrite $s, pack 'n/a*', $_
                        for $self->_replies('tcp', substr $buffer{$s}, 0, $n, '');
                }
            }
        }
    }
}

sub _read_zone {
    my ($self) = @_;
    for (split /\n/, $self->{zone} // '') {
        my ($name, $type, $value) = /^\s*(\S+)\s+(\S+)\s+(.+?)\s*$/ or next;
        my $node = $self->{names}{lc $name} //= {};
        if ($value =~ s/^!//) { $node->{manners}{$type}{$_} = 1 for split ' ', $value }
        else { push @{ $node->{records}{$type} }, $value }
    }
}

sub _wire_name {
    my ($name) = @_;
    $name =~ s/\.\z//;
    return join('', map { s/\\(\d{3})/chr $1/ge; pack 'C/a*', $_ } split /\./, $name) . "\0";
}

sub _wire_value {
    my ($type, $value) = @_;
    return inet_pton(AF_INET, $value) if $type eq 'A';
    return inet_pton(AF_INET6, $value) if $type eq 'AAAA';
    return pack 'C/a*', $value if $type eq 'TXT';
    return pack('n', $1) . _wire_name($2) if $type eq 'MX' && $value =~ /^(\d+)\s+(\S+)$/;
    return _wire_name($value);
}

# The question: id, name, type, its octets, and the UDP size of an OPT record, if any.
sub _parse {
    my ($query) = @_;
    my ($id, $flags, $questions, undef, undef, $additional) = unpack 'n6', $query;
    my ($at, @labels) = (12);
    while (my $n = ord substr $query, $at, 1) {
        push @labels, substr $query, $at + 1, $n;
        $at += 1 + $n;
    }
    my $type = unpack 'n', substr $query, $at + 1, 2;
    my %q = (id => $id, name => lc join('.', @labels), type => $type_name{$type} // "TYPE$type",
        question => substr $query, 12, $at + 5 - 12);
    $q{size} = unpack 'x3 n', substr $query, $at + 5 if $additional;
    return \%q;
}

# Answers and the response code for a question, CNAMEs followed.
sub _look_up {
    my ($self, $q) = @_;
    my ($name, @answers) = ($q->{name});
    for (1 .. 20) {
        my $node = $self->{names}{$name} or return ($rcode{nxdomain}, @answers);
        my $records = $node->{records} // {};
        my ($kind) = grep { $records->{$_} } $q->{type}, 'CNAME' or last;
        push @answers, map {
            _wire_name($name) . pack 'n2 N n/a*', $type{$kind}, 1, 60, _wire_value($kind, $_)
        } @{ $records->{$kind} };
        last if $kind eq $q->{type};
        $name = lc $records->{CNAME}[0];
    }
    return (0, @answers);
}

sub _reply {
    my ($q, $code, $truncated, @answers) = @_;
    my $opt = $q->{size} ? pack 'x n n N n', 41, 1232, 0, 0 : '';
    my $flags = 0x8180 | $truncated << 9 | $code;
    return pack('n6', $q->{id}, $flags, 1, scalar @answers, 0, $opt ? 1 : 0)
        . join '', $q->{question}, @answers, $opt;
}

sub _forged {
    my ($self, $q, $from) = @_;
    my $other = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Proto => 'udp') or die "udp: $!\n";
    send $other, _reply($q, $rcode{nxdomain}, 0), 0, $from;
    my %other_id = (%$q, id => $q->{id} ^ 0x5555);
    my %other_name = (%$q, question => _wire_name('forged.test') . substr $q->{question}, -4);
    return ("\1\2\3", map { _reply($_, $rcode{nxdomain}, 0) } \%other_id, \%other_name);
}

# All that goes back for one query, in order.
sub _replies {
    my ($self, $proto, $query, $from) = @_;
    my $q = eval { _parse($query) } or return;
    print { $self->{journal} } "$proto $q->{name} $q->{type}\n";
    my $manners = ($self->{names}{ $q->{name} } // {})->{manners} // {};
    my %do = map {%$_} grep {$_} @$manners{ $q->{type}, '*' };
    return if $do{silent} || $do{tcpsilent} && $proto eq 'tcp';
    return _reply({ %$q, size => 0 }, $rcode{formerr}, 0) if $do{noedns} && $q->{size};
    for (grep { $do{$_} } keys %rcode) { return _reply($q, $rcode{$_}, 0) }
    my ($code, @answers) = $self->_look_up($q);
    if ($do{malformed}) {
        my $claim = pack 'n2 N n', $type{ $q->{type} }, 1, 60, 4000;
        return _reply($q, 0, 0, substr($q->{question}, 0, -4) . $claim);
    }
    my $reply = _reply($q, $code, 0, @answers);
    $reply = _reply($q, $code, 1) if $proto eq 'udp' && length $reply > ($q->{size} || 512);
    return (($do{noise} && $proto eq 'udp' ? $self->_forged($q, $from) : ()), $reply);
}

sub _run {
    my $zone = '';
    while (defined(my $line = <STDIN>)) {
        last if $line eq "\n";
        $zone .= $line;
    }
    my $self = __PACKAGE__->SUPER::new(zone => $zone);
    my @listeners = $self->listeners;
    @SIG{qw(PIPE TERM)} = ('IGNORE', sub { exit });
    syswrite STDOUT, "$self->{port}\n";
    $self->_serve(@listeners, \*STDIN);
}

_run() if !caller;

1;
