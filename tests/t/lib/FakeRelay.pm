# A relay that misbehaves on order. One forked process serves any number of connections at once;
# what it is to do at each step is given beforehand, what it received is read from its journal.
#
#   my $relay = FakeRelay->new(port => $ENV{FAKE_RELAY_PORT}, script => {
#       rcpt => [[reply => '550 5.1.1 no'], [reply => '250 ok']],   # first RCPT, then all others
#       dot  => [[hang => 1]],
#   });
#   $relay->script({ mail => ... });          # from now on, for new connections
#   my ($mail) = $relay->wait_for(sub { $_[0]->mails }, 5);
#   my @mails = $relay->mails_when(3); my ($mail) = $relay->mails_from('a@b.test');   # soon, or none
#   $relay->stop;                             # also done when the object goes
#
# Steps: connect greeting ehlo helo mail rcpt data dot rset noop quit other. A step's value is a
# list of actions; the n-th time the step comes up in a connection the n-th action is taken, the
# last one for ever. With `global => 1` in new() the count runs over all connections. An action is
# a list of pairs, done in order:
#   reply => "250 text" or [lines]   CRLF is added; with many lines the code is put before each
#   raw => bytes                     exactly these
#   delay => seconds                 the connection does nothing more until then
#   drip => [bytes, seconds]         one byte every so many seconds
#   endless => bytes                 these again and again until the peer is gone
#   garbage => n                     n octets that are no reply
#   hang => 1 | close => 1 | reset => 1
# A 250 or 354 of its own is sent for a step without an entry. What EHLO offers is set by
# pipelining, 8bitmime, size (0 to leave out), enhanced, and offers => [..]; no_ehlo => 1 refuses
# EHLO with 502.
#
# A journal is a list of connections, each { id, wire, said, commands => [[batch of lines], ..],
# mails => [{from, rcpts, mail, data, wire, complete}], end => 'eof'|'reset'|'quit'|'open' }. A batch
# is what one read brought; mails are those whose final dot arrived; data has its dots unstuffed.
package FakeRelay;

use strict;
use warnings;
use parent 'FakeServer';
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Select;
use Socket qw(SOL_SOCKET SO_LINGER);
use Time::HiRes qw(time);

sub new {
    my ($class, %a) = @_;
    my $self = $class->SUPER::new(pipelining => 1, '8bitmime' => 1, enhanced => 1, size => 104857600,
        offers => [], script => {}, %a);
    return $self->script($self->{script})->start;
}

# Replaces the script; connections opened after this returned obey it.
sub script { my ($self, $script) = @_; return $self->keep('script', $script) }

sub connections { @{ $_[0]->kept('journal') // [] } }
sub mails       { map { @{ $_->{mails} } } $_[0]->connections }
sub commands    { map { map {@$_} @{ $_->{commands} } } $_[0]->connections }

# All mails, once there are so many.
sub mails_when {
    my ($self, $count, $seconds) = @_;
    return $self->wait_for(sub { $_[0]->mails >= $count }, $seconds // 5) ? $self->mails : ();
}

# Those from an address, once there is one.
sub mails_from {
    my ($self, $from, $seconds) = @_;
    return $self->wait_for(sub { grep { $_->{from} eq $from } $_[0]->mails }, $seconds // 3);
}

# True once its first connection is at its end.
sub first_ended { $_[0]->wait_for(sub { ($_[0]->connections)[0]{end} ne 'open' }, 3) }

# ---- what follows runs in the relay's process

sub _serve {
    my ($self, $listener) = @_;
    $listener->blocking(0);
    my (%open, @all, %global);
    $self->{all} = \@all;
    while (1) {
        my $now = time;
        my $wait = 5;
        my ($r, $w) = (IO::Select->new($listener), IO::Select->new);
        for my $c (values %open) {
            if ($c->{until} && $c->{until} <= $now) { delete $c->{until}; $self->_work($c); }
            next if $c->{gone};
            $wait = $c->{until} - $now if $c->{until} && $c->{until} - $now < $wait;
            $r->add($c->{socket});
            $w->add($c->{socket}) if length $c->{out} && !$c->{until};
        }
        $self->_drop(\%open);
        $self->_record;
        my ($can_read, $can_write) = IO::Select->select($r, $w, undef, $wait);
        for my $s (@{ $can_write || [] }) { $self->_flush($open{ fileno $s }) if $open{ fileno $s }; }
        for my $s (@{ $can_read || [] }) {
            if ($s == $listener) { $self->_accept($listener, \%open, \@all, \%global); next; }
            my $c = $open{ fileno $s } or next;
            $self->_read($c) unless $c->{gone};
        }
        $self->_drop(\%open);
        $self->_record;
    }
}

sub _accept {
    my ($self, $listener, $open, $all, $global) = @_;
    my $s = $listener->accept or return;
    $s->blocking(0);
    my $c = {
        socket => $s, in => '', out => '', todo => [],
        seen => $self->{global} ? $global : {}, script => $self->kept('script'),
        log => { id => @$all + 1, wire => '', said => '', commands => [], mails => [], end => 'open' },
    };
    push @$all, $c->{log};
    $open->{ fileno $s } = $c;
    $self->{dirty} = 1;
    $self->_step($c, 'connect', []);
    $self->_step($c, 'greeting', [reply => '220 fake.relay ESMTP']);
    $self->_work($c);
}

sub _record { my ($self) = @_; $self->keep('journal', $self->{all}) if delete $self->{dirty} }

sub _drop {
    my ($self, $open) = @_;
    for my $fd (keys %$open) {
        my $c = $open->{$fd};
        next unless $c->{gone};
        close $c->{socket};
        delete $open->{$fd};
    }
}

sub _end {
    my ($self, $c, $how) = @_;
    $c->{log}{end} = $how if $c->{log}{end} eq 'open';
    $c->{gone} = 1;
    $self->{dirty} = 1;
}

sub _read {
    my ($self, $c) = @_;
    my $n = sysread $c->{socket}, my $bytes, 262144;
    if (!defined $n) {
        return if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
        return $self->_end($c, 'reset');
    }
    return $self->_end($c, 'eof') if !$n;
    $self->{dirty} = 1;
    $c->{log}{wire} .= $bytes;
    $c->{in} .= $bytes;
    delete $c->{batch};
    $self->_work($c);
}

# Does what is still to be done, then takes commands, until there is neither or it must wait.
sub _work {
    my ($self, $c) = @_;
    while (!$c->{gone} && !$c->{until} && !$c->{hung}) {
        if (@{ $c->{todo} }) { $self->_act($c, splice @{ $c->{todo} }, 0, 2); next; }
        last unless $c->{in_data} ? $self->_take_data($c) : $self->_take_command($c);
    }
    $self->_flush($c) unless $c->{gone} || $c->{until};
}

sub _take_command {
    my ($self, $c) = @_;
    $c->{in} =~ s/^(.*?)\r?\n//s or return 0;
    my $line = $1;
    my $verb = $line =~ /^([a-z]+)/i ? lc $1 : '';
    push @{ $c->{log}{commands} }, $c->{batch} = [] if !$c->{batch};
    push @{ $c->{batch} }, $line;
    my $method = $self->can("_on_$verb");
    if ($method) { $self->$method($c, $line); }
    else { $self->_step($c, 'other', [reply => '500 5.5.1 unknown']); }
    return 1;
}

sub _take_data {
    my ($self, $c) = @_;
    # The final dot may stand at the very beginning: an empty message.
    my $end = $c->{in} =~ /^\.\r\n/ ? 0 : index $c->{in}, "\r\n.\r\n";
    return 0 if $end < 0;
    my $body = $end || $c->{in} !~ /^\.\r\n/ ? substr($c->{in}, 0, $end + 2) : '';
    substr($c->{in}, 0, length($body) + 3) = '';
    $c->{in_data} = 0;
    my %mail = (%{ $c->{mail} }, wire => "$body.\r\n");
    $body =~ s/^\.//mg;
    $mail{data} = $body;
    push @{ $c->{log}{mails} }, \%mail;
    $self->{dirty} = 1;
    $self->_step($c, 'dot', [reply => '250 2.0.0 queued as FAKE' . @{ $c->{log}{mails} }]);
    return 1;
}

sub _on_ehlo {
    my ($self, $c) = @_;
    return $self->_step($c, 'ehlo', [reply => '502 5.5.1 no EHLO here']) if $self->{no_ehlo};
    my @offers = ($self->{pipelining} ? 'PIPELINING' : (), $self->{'8bitmime'} ? '8BITMIME' : (),
        $self->{size} ? "SIZE $self->{size}" : (),
        $self->{enhanced} ? 'ENHANCEDSTATUSCODES' : (), @{ $self->{offers} });
    $self->_step($c, 'ehlo', [reply => ['250 fake.relay', @offers]]);
}

sub _on_helo { $_[0]->_step($_[1], 'helo', [reply => '250 fake.relay']) }
sub _on_noop { $_[0]->_step($_[1], 'noop', [reply => '250 2.0.0 ok']) }

sub _on_mail {
    my ($self, $c, $line) = @_;
    my ($from) = $line =~ /<([^>]*)>/;
    $c->{mail} = { mail => $line, from => $from, rcpts => [] };
    $self->_step($c, 'mail', [reply => '250 2.1.0 ok']);
}

sub _on_rcpt {
    my ($self, $c, $line) = @_;
    my ($rcpt) = $line =~ /<([^>]*)>/;
    my $said = $self->_step($c, 'rcpt', [reply => '250 2.1.5 ok']);
    push @{ $c->{mail}{rcpts} }, $rcpt if $said =~ /^2/;
}

sub _on_data {
    my ($self, $c) = @_;
    my $said = $self->_step($c, 'data', [reply => '354 go ahead']);
    $c->{in_data} = $said =~ /^354/ ? 1 : 0;
}

sub _on_rset {
    my ($self, $c) = @_;
    delete $c->{mail};
    $self->_step($c, 'rset', [reply => '250 2.0.0 ok']);
}

sub _on_quit {
    my ($self, $c) = @_;
    $c->{log}{end} = 'quit';
    $self->_step($c, 'quit', [reply => '221 2.0.0 bye', close => 1]);
}

# Puts a step's action in line; returns what reply it will give ('' for none).
sub _step {
    my ($self, $c, $step, $default) = @_;
    my $actions = $c->{script}{$step};
    my $n = $c->{seen}{$step}++;
    my @action = @{ $actions ? ($actions->[$n] // $actions->[-1]) : $default };
    my %what = @action;
    my $said = ref $what{reply} ? $what{reply}[0] : $what{reply} // $what{raw} // '';
    push @{ $c->{todo} }, @action;
    return $said;
}

sub _act {
    my ($self, $c, $what, $value) = @_;
    if    ($what eq 'reply')   { $c->{out} .= _reply($value); }
    elsif ($what eq 'raw')     { $c->{out} .= $value; }
    elsif ($what eq 'garbage') { $c->{out} .= join '', map { chr int rand 256 } 1 .. $value; }
    elsif ($what eq 'endless') { $c->{endless} = $c->{out} = $value; $c->{hung} = 1; }
    elsif ($what eq 'hang')    { $c->{hung} = 1; }
    elsif ($what eq 'delay')   { $self->_flush($c); $c->{until} = time + $value; }
    elsif ($what eq 'drip')    { $self->_drip($c, @$value); }
    elsif ($what eq 'close')   { $c->{closing} = 1; $c->{hung} = 1; }
    elsif ($what eq 'reset') {
        setsockopt $c->{socket}, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
        $self->_end($c, 'ours');
    }
    else { die "no action '$what'\n"; }
}

# Sends the first byte and leaves the others as further actions.
sub _drip {
    my ($self, $c, $bytes, $pause) = @_;
    $c->{out} .= substr $bytes, 0, 1, '';
    $self->_flush($c);
    $c->{until} = time + $pause;
    unshift @{ $c->{todo} }, drip => [$bytes, $pause] if length $bytes;
}

sub _reply {
    my ($value) = @_;
    return "$value\r\n" unless ref $value;
    my ($code, $first) = $value->[0] =~ /^(\d{3}) ?(.*)/s or die "no code in '$value->[0]'\n";
    my @lines = ($first, @$value[1 .. $#$value]);
    return join '', map { $code . ($_ < $#lines ? '-' : ' ') . "$lines[$_]\r\n" } 0 .. $#lines;
}

# Whoever has heard a reply finds in the journal what it was to.
sub _flush {
    my ($self, $c) = @_;
    $self->_record if length $c->{out};
    while (length $c->{out}) {
        my $n = syswrite $c->{socket}, $c->{out};
        if (!defined $n) {
            return if $! == EAGAIN || $! == EWOULDBLOCK || $! == EINTR;
            return $self->_end($c, 'reset');
        }
        my $said = substr $c->{out}, 0, $n, '';
        last if $c->{endless};
        $c->{log}{said} .= $said;
        $self->{dirty} = 1;
    }
    if (defined $c->{endless} && length $c->{out} < 65536) { $c->{out} .= $c->{endless} x 64; }
    $self->_end($c, 'ours') if $c->{closing} && !length $c->{out};
}

1;
