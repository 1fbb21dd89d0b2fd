# A scanner's daemon that does what it is told, which no real one would: takes its time, hangs, dies,
# answers nonsense. It speaks as clamd does, unless its script has another speech.
#
#   my $fake = FakeScanner->new(script => [{ say => "stream: OK\0" }, { hang => 1 }]);
#   "SmtpdScanner clamd 127.0.0.1:" . $fake->port
#   $fake->asked                   # how many connections were made
#   $fake->heard(0)                # what the first one said, once it is over
#   $fake->stop;                   # also done when the object goes
#
# The n-th connection is served by the n-th entry, the last one for ever. An entry's keys, done in
# this order: read => n octets (all up to clamd's final empty chunk without it; 0: none),
# delay => seconds, say => octets, pieces => 1 says them one by one, endless => octets again and again,
# drip => seconds: an octet as often as that, hang => 1 until the peer closes, reset => 1. Then it closes.
package FakeScanner;

use strict;
use warnings;
use parent 'FakeServer';
use POSIX ();
use SmallFile;
use Socket qw(SOL_SOCKET SO_LINGER);
use Time::HiRes qw(sleep);

sub new {
    my ($class, %a) = @_;
    return $class->SUPER::new(script => [{ say => "stream: OK\0" }], %a)->start;
}

# Its process group: the connections have processes of their own.
sub stop {
    my ($self) = @_;
    kill TERM => -$self->pid if $self->pid && $self->{owner} == $$;
    $self->SUPER::stop;
}

sub asked { my @files = glob "$_[0]{dir}/*.begun"; return scalar @files }

sub heard { my $file = "$_[0]{dir}/$_[1].over"; return -e $file ? slurp($file) : undef }

# ---- what follows runs in the fake's processes

sub _serve {
    my ($self, $listener) = @_;
    POSIX::setpgid(0, 0);
    $SIG{CHLD} = 'IGNORE';
    for (my $n = 0;; $n++) {
        my $s = $listener->accept or next;
        my $entry = $self->{script}[$n] // $self->{script}[-1];
        $self->write_file("$n.begun", '');
        next if fork;
        close $listener;
        $self->write_file("$n.new", _play($s, $entry));
        rename "$self->{dir}/$n.new", "$self->{dir}/$n.over";
        POSIX::_exit(0);
    }
}

# What the peer said until it has said all, or closes.
sub _listen {
    my ($s, $wanted) = @_;
    my $heard = '';
    until (defined $wanted ? length $heard >= $wanted : _is_whole($heard)) {
        sysread $s, $heard, 65536, length $heard or last;
    }
    return $heard;
}

# zINSTREAM, NUL, chunks with their lengths before them, the last one empty.
sub _is_whole {
    my ($heard) = @_;
    my $at = index($heard, "\0") + 1 or return 0;
    return 1 if $heard !~ /^zINSTREAM\0/;
    while (length $heard >= $at + 4) {
        my $n = unpack 'N', substr $heard, $at, 4;
        return 1 if !$n;
        $at += 4 + $n;
    }
    return 0;
}

sub _play {
    my ($s, $entry) = @_;
    my $heard = _listen($s, $entry->{read});
    sleep $entry->{delay} if $entry->{delay};
    my $say = $entry->{say} // '';
    for my $piece ($entry->{pieces} ? split //, $say : $say) {
        syswrite $s, $piece;
        sleep 0.001 if $entry->{pieces};
    }
    if (defined $entry->{endless}) { 1 while syswrite $s, $entry->{endless} x 1000; }
    if ($entry->{drip}) { sleep $entry->{drip} while syswrite $s, 'x'; }
    if ($entry->{hang}) { 1 while sysread $s, $heard, 65536, length $heard; }
    setsockopt $s, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0 if $entry->{reset};
    close $s;
    return $heard;
}

1;
