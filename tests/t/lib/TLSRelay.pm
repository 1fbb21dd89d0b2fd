# A relay that speaks TLS and AUTH, and writes down every line it was sent with whether it came inside
# TLS. One forked process serves all connections; it trusts nothing and delivers nothing. For one that
# misbehaves in the SMTP dialogue itself see FakeRelay.
#
#   my $relay = TLSRelay->new(pair => $ca->issue('relay', names => ['localhost']),
#       clear => ['SIZE 1000'], tls => ['AUTH PLAIN LOGIN'],    # what EHLO offers before TLS, inside it
#       user => 'me', password => 'secret');                    # AUTH takes these octets only
#   $relay->wait_for(sub { $_[0]->mails == 1 });                # bounded; false when it did not come
#   $relay->lines; $relay->lines('clear'); $relay->lines('tls'); # commands, in order of arrival
#   $relay->opened; $relay->secured; $relay->ended; $relay->mails;   # counts
#   $relay->names;                                              # server names of the handshakes
#   $relay->stop;                                               # also done when the object goes
#
# More options: unasked => 'data' | 'dot' (another 250 behind its reply to that, as a TLS record of its own
# that comes with the reply's), implicit => 1 (TLS from the first octet), starttls => 0 (is not offered, and 502),
# inject => bytes (sent behind the 220 of STARTTLS in the same write, before it goes on to the
# handshake), refuse_auth => reply (to whatever credentials), refuse_starttls => reply, address => other
# than 127.0.0.1. After its 220 to STARTTLS it can do something else than a handshake:
#   handshake => 'close' | 'hang' | 'garbage' | 'drip' (an octet of one long TLS record every 0.1 s) |
#       'late' (the handshake, and then it closes before anything is said inside)
package TLSRelay;

use strict;
use warnings;
use parent 'FakeServer';
use IO::Select;
use IO::Socket::SSL;
use MIME::Base64 qw(decode_base64);
use Socket qw(IPPROTO_TCP);

use constant TCP_CORK => 3; # Linux

sub new {
    my ($class, %a) = @_;
    return $class->SUPER::new(clear => [], tls => [], starttls => 1, user => '', password => '',
        dripping => {}, %a)->start;
}

# The journal: rows of connection, kind (open clear tls secured mail end), octets in hexadecimal.
sub _rows {
    my ($self, $kind) = @_;
    my @rows = map { my @f = split / /; $f[2] = pack 'H*', $f[2] // ''; \@f }
        $self->read_file('journal') =~ /(.*)\n/g;
    return grep { $_->[1] =~ /^(?:$kind)\z/ } @rows;
}

sub lines   { my ($self, $where) = @_; return map { $_->[2] } $self->_rows($where // 'clear|tls') }
sub names   { return map { $_->[2] } $_[0]->_rows('secured') }
sub opened  { my @rows = $_[0]->_rows('open');    return scalar @rows }
sub secured { my @rows = $_[0]->_rows('secured'); return scalar @rows }
sub ended   { my @rows = $_[0]->_rows('end');     return scalar @rows }
sub mails   { my @rows = $_[0]->_rows('mail');    return scalar @rows }

# ---- what follows runs in the relay's process

sub _serve {
    my ($self, $listener) = @_;
    open $self->{journal}, '>>', "$self->{dir}/journal" or die "journal: $!\n";
    my ($all, %of, $count) = (IO::Select->new($listener));
    while (1) {
        my @ready = $all->can_read(%{ $self->{dripping} } ? 0.1 : undef);
        $self->_drip;
        for my $s (@ready) {
            if ($s == $listener) {
                my $c = $self->_accept($listener, ++$count) or next;
                $of{ fileno $c->{socket} } = $c;
                $all->add($c->{socket});
                next;
            }
            my $c = $of{ fileno $s };
            next if $self->_read($c);
            $self->_note($c, 'end');
            delete $self->{dripping}{ $c->{id} };
            $all->remove($s);
            delete $of{ fileno $s };
            close $s;
        }
    }
}

sub _note {
    my ($self, $c, $kind, $octets) = @_;
    syswrite $self->{journal}, "$c->{id} $kind " . unpack('H*', $octets // '') . "\n";
}

sub _accept {
    my ($self, $listener, $id) = @_;
    my $c = { id => $id, in => '', kind => 'clear', state => 'command', socket => scalar $listener->accept };
    return unless $c->{socket};
    $self->_note($c, 'open');
    if ($self->{implicit} && !$self->_secure($c)) {
        $self->_note($c, 'end');
        return;
    }
    $self->_say($c, '220 tls.relay ESMTP');
    return $c;
}

sub _secure {
    my ($self, $c) = @_;
    my $name = '';
    IO::Socket::SSL->start_SSL($c->{socket}, SSL_server => 1, SSL_cert_file => $self->{pair}{cert},
        SSL_key_file => $self->{pair}{key}, SSL_verify_mode => SSL_VERIFY_NONE, Timeout => 5) or return 0;
    $name = $c->{socket}->get_servername // '';
    $c->{socket}->blocking(0);
    $c->{kind} = 'tls';
    $self->_note($c, 'secured', $name);
    return 1;
}

sub _say { my ($self, $c, @lines) = @_; syswrite $c->{socket}, join '', map {"$_\r\n"} @lines; return 1 }

# The reply to a step, and behind it in the same segment what nobody has asked for.
sub _answer {
    my ($self, $c, $step, $line) = @_;
    return $self->_say($c, $line) if ($self->{unasked} // '') ne $step;
    setsockopt $c->{socket}, IPPROTO_TCP, TCP_CORK, 1;
    $self->_say($c, $_) for $line, '250 2.0.0 unasked';
    setsockopt $c->{socket}, IPPROTO_TCP, TCP_CORK, 0;
    return 1;
}

# Takes what has come. False: the connection is at its end.
sub _read {
    my ($self, $c) = @_;
    while (1) {
        my $n = sysread $c->{socket}, $c->{in}, 65536, length $c->{in};
        return $!{EAGAIN} || $!{EWOULDBLOCK} ? 1 : 0 if !defined $n;
        return 0 if !$n;
        return $self->_hear_handshake($c) if $c->{state} eq 'deaf';
        while ($c->{in} =~ s/^([^\n]*?)\r?\n//) {
            $self->_take($c, $1) or return 0;
        }
        return 1 if $c->{kind} eq 'clear' || !$c->{socket}->pending;
    }
}

sub _take {
    my ($self, $c, $line) = @_;
    if ($c->{state} eq 'data') {
        return 1 if $line ne '.';
        $c->{state} = 'command';
        $self->_note($c, 'mail');
        return $self->_answer($c, 'dot', '250 2.0.0 taken');
    }
    $self->_note($c, $c->{kind}, $line);
    return $self->_login($c, $line) if $c->{state} ne 'command';
    my ($verb) = $line =~ /^([a-z]*)/i;
    my $method = $self->can('_on_' . lc $verb) or return $self->_say($c, '250 2.0.0 ok');
    return $self->$method($c, $line);
}

sub _on_ehlo {
    my ($self, $c) = @_;
    my @offers = @{ $self->{ $c->{kind} } };
    push @offers, 'STARTTLS' if $c->{kind} eq 'clear' && $self->{starttls};
    my @lines = ('tls.relay', @offers);
    return $self->_say($c, map { '250' . ($_ < $#lines ? '-' : ' ') . $lines[$_] } 0 .. $#lines);
}

sub _on_starttls {
    my ($self, $c) = @_;
    return $self->_say($c, '502 5.5.1 no TLS here') if !$self->{starttls} || $c->{kind} eq 'tls';
    return $self->_say($c, $self->{refuse_starttls}) if $self->{refuse_starttls};
    syswrite $c->{socket}, "220 2.0.0 go\r\n" . ($self->{inject} // '');
    my $handshake = $self->{handshake} // '' or return $self->_secure($c);
    return 0 if $handshake eq 'close' || ($handshake eq 'late' && $self->_secure($c));
    $c->{state} = 'deaf';
    $self->{dripping}{ $c->{id} } = $c if $handshake eq 'drip';
    return 1;
}

# What a deaf connection answers to the client's part of the handshake.
sub _hear_handshake {
    my ($self, $c) = @_;
    $self->_say($c, ('250 2.0.0 ok') x 3) if $self->{handshake} eq 'garbage' && !$c->{heard}++;
    $c->{in} = '';
    return 1;
}

sub _drip {
    my ($self) = @_;
    my $begin = "\x16\x03\x03\x3f\x00\x02\x00\x3e\xfc";    # of a ServerHello of 16,128 octets
    for my $c (values %{ $self->{dripping} }) {
        my $at = $c->{dripped}++;
        syswrite $c->{socket}, $at < length $begin ? substr $begin, $at, 1 : "\0";
    }
}

sub _on_auth {
    my ($self, $c, $line) = @_;
    if ($line =~ /^AUTH PLAIN (\S+)$/i) {
        return $self->_judge($c, decode_base64($1) eq "\0$self->{user}\0$self->{password}");
    }
    return $self->_say($c, '504 5.5.4 unknown') if $line !~ /^AUTH LOGIN$/i;
    $c->{state} = 'user';
    return $self->_say($c, '334 VXNlcm5hbWU6');
}

sub _login {
    my ($self, $c, $line) = @_;
    if ($c->{state} eq 'user') {
        @$c{qw(user state)} = (decode_base64($line), 'password');
        return $self->_say($c, '334 UGFzc3dvcmQ6');
    }
    $c->{state} = 'command';
    return $self->_judge($c, $c->{user} eq $self->{user} && decode_base64($line) eq $self->{password});
}

sub _judge {
    my ($self, $c, $right) = @_;
    return $self->_say($c, $self->{refuse_auth}) if $self->{refuse_auth};
    return $self->_say($c, $right ? '235 2.7.0 welcome' : '535 5.7.8 wrong');
}

sub _on_data { my ($self, $c) = @_; $c->{state} = 'data'; return $self->_answer($c, 'data', '354 go on') }
sub _on_quit { my ($self, $c) = @_; $self->_say($c, '221 2.0.0 bye'); return 0 }

1;
