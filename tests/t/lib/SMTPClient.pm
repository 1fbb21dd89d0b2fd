# A raw SMTP client for tests: it sends exactly the bytes it is given and never waits without end.
# Every wait is bounded by `timeout` seconds (10 if not said) and dies with what was seen so far.
#
#   my $c = SMTPClient->new(hostport => '127.0.0.1:2525');   # or host => .., port => ..
#   is $c->code, 220;                       # the greeting was read; new(greeting => 0) leaves it
#   is $c->cmd('EHLO me.test'), 250;        # the code; the lines are in $c->lines, $c->text
#   $c->data("Subject: x\r\n\r\nhi\r\n");   # DATA, dots stuffed, final dot: the final code
#   my @codes = $c->pipeline('MAIL FROM:<>', 'RCPT TO:<a@b.test>');   # one write, a reply each
#   $c->send_raw($bytes); $c->read_reply; $c->expect_eof; $c->half_close; $c->reset;
package SMTPClient;

use strict;
use warnings;
use Carp qw(croak);
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Select;
use IO::Socket::IP;
use Socket qw(SOL_SOCKET SO_LINGER SHUT_WR);
use Time::HiRes qw(time);

sub new {
    my ($class, %a) = @_;
    if ($a{hostport}) {
        @a{qw(host port)} = $a{hostport} =~ /^(.*):(\d+)$/ or croak "bad address $a{hostport}";
    }
    my $self = bless {
        timeout => $a{timeout} // 10, buffer => '', eof => 0, code => 0, lines => [], sent => '',
    }, $class;
    $self->{socket} = IO::Socket::IP->new(
        PeerHost => $a{host} // '127.0.0.1', PeerPort => $a{port}, Type => Socket::SOCK_STREAM,
        Timeout => $self->{timeout}, ($a{local} ? (LocalHost => $a{local}) : ()),
    ) or croak "cannot connect to port $a{port}: $@";
    $self->{socket}->blocking(0);
    $self->read_reply if $a{greeting} // 1;
    return $self;
}

sub code   { $_[0]{code} }
sub lines  { @{ $_[0]{lines} } }
sub text   { join "\n", @{ $_[0]{lines} } }
# The whole reply, a "code text" for each line.
sub heard  { my ($self) = @_; return join "\n", map {"$self->{code} $_"} $self->lines }
sub socket { $_[0]{socket} }
sub port   { $_[0]{socket}->sockport }

# Reads what is there, waiting for it until the deadline. False at the end of the stream.
sub _fill {
    my ($self, $deadline, $what) = @_;
    while (1) {
        return 0 if $self->{eof};
        my $n = sysread $self->{socket}, $self->{buffer}, 65536, length $self->{buffer};
        return 1 if $n;
        if (defined $n) { $self->{eof} = 'closed'; return 0; }
        if ($! != EAGAIN && $! != EWOULDBLOCK && $! != EINTR) { $self->{eof} = "$!"; return 0; }
        my $left = $deadline - time;
        croak "no $what within $self->{timeout} s; seen so far: '$self->{buffer}'" if $left <= 0;
        IO::Select->new($self->{socket})->can_read($left);
    }
}

sub read_line {
    my ($self, $deadline) = @_;
    $deadline //= time + $self->{timeout};
    my $end;
    while (($end = index $self->{buffer}, "\r\n") < 0) {
        next if $self->_fill($deadline, 'line');
        croak "connection $self->{eof} in a reply, after '$self->{buffer}'";
    }
    my $line = substr $self->{buffer}, 0, $end + 2, '';
    return substr $line, 0, $end;
}

# One reply of any number of lines; returns its code. Dies when it is not shaped like a reply.
sub read_reply {
    my ($self) = @_;
    my $deadline = time + $self->{timeout};
    my ($code, @lines);
    while (1) {
        my $line = $self->read_line($deadline);
        $line =~ /^(\d{3})(?:([ -])(.*))?$/ or croak "not a reply line: '$line'";
        croak "code changes from $code inside a reply: '$line'" if defined $code && $code != $1;
        $code = $1;
        push @lines, $3 // '';
        last if ($2 // ' ') eq ' ';
    }
    $self->{lines} = \@lines;
    return $self->{code} = $code;
}

# Sends all of it, but keeps reading while the peer does not take more, so that neither side waits
# for the other for ever. Dies when the peer is gone or takes nothing for `timeout` seconds.
sub send_raw {
    my ($self, $bytes) = @_;
    my ($deadline, $at) = (time + $self->{timeout}, 0);
    local $SIG{PIPE} = 'IGNORE';
    while ($at < length $bytes) {
        my $n = syswrite $self->{socket}, $bytes, 262144, $at;
        if ($n) { $at += $n; $deadline = time + $self->{timeout}; next; }
        croak "cannot send: $!" if $! != EAGAIN && $! != EWOULDBLOCK && $! != EINTR;
        my $left = $deadline - time;
        croak "peer takes nothing for $self->{timeout} s" if $left <= 0;
        my $readers = $self->{eof} ? undef : IO::Select->new($self->{socket});
        my ($r) = IO::Select->select($readers, IO::Select->new($self->{socket}), undef, $left);
        $self->_fill($deadline, 'reply') if $r && @$r;
    }
    return $self;
}

sub cmd {
    my ($self, $line) = @_;
    $self->send_raw("$line\r\n");
    return $self->read_reply;
}

# All commands in one write; the codes in order.
sub pipeline {
    my ($self, @commands) = @_;
    $self->send_raw(join '', map {"$_\r\n"} @commands);
    return map { $self->read_reply } @commands;
}

sub stuff {
    my ($message) = @_;
    $message =~ s/^\./../;
    $message =~ s/\r\n\./\r\n../g;
    return $message;
}

# The DATA command and, after 354, the message with its dots stuffed and the final dot. A message
# without CRLF at its end gets one, since SMTP cannot carry it otherwise (RFC 5321 section 4.1.1.4).
sub data {
    my ($self, $message) = @_;
    return $self->{code} if $self->cmd('DATA') != 354;
    $message .= "\r\n" unless $message eq '' || $message =~ /\r\n\z/;
    $self->send_raw(stuff($message) . ".\r\n");
    return $self->read_reply;
}

# MAIL, one RCPT each, DATA: the first code that is not a 2xx, or the final one.
sub mail {
    my ($self, $from, $rcpts, $message) = @_;
    my $code = $self->cmd("MAIL FROM:<$from>");
    return $code if $code !~ /^2/;
    for (ref $rcpts ? @$rcpts : $rcpts) {
        $code = $self->cmd("RCPT TO:<$_>");
        return $code if $code !~ /^2/;
    }
    return $self->data($message);
}

# True when the peer closes within the time and says nothing more; else what it said instead.
sub expect_eof {
    my ($self) = @_;
    my $deadline = time + $self->{timeout};
    eval { 1 while $self->_fill($deadline, 'end of the connection'); 1 } or return 0;
    return $self->{buffer} eq '';
}

# How the peer ended it: '' while open, 'closed', or the error ("Connection reset by peer").
sub ended { $_[0]{eof} || '' }
sub unread { $_[0]{buffer} }

sub half_close { shutdown $_[0]{socket}, SHUT_WR; $_[0] }

sub close { CORE::close $_[0]{socket}; $_[0] }

# Leaves with a RST instead of a FIN.
sub reset {
    my ($self) = @_;
    setsockopt $self->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    return $self->close;
}

sub quit {
    my ($self) = @_;
    my $code = $self->cmd('QUIT');
    $self->close;
    return $code;
}

1;
