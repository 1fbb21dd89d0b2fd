# A scanner's daemon that misbehaves on order: for protocols of one question and one answer per
# connection, whose question has a Content-length (spamd's, HTTP). One forked process serves one
# connection after the other; what was asked is kept.
#
#   my $fake = FakeDaemon->new;
#   $fake->answer("SPAMD/1.1 0 EX_OK\r\n...");     # to the next questions, then close
#   $fake->answer({ drip => [$bytes, 0.01] });     # one octet every so many seconds
#   $fake->answer({ early => $bytes });            # before the question is read, then close
#   $fake->answer({ hang => 1 });                  # nothing, until the other side closes
#   $fake->answer({ die => 100 });                 # close after so many octets of the question
#   $fake->answer({ endless => $bytes });          # again and again until the other side closes
#   $fake->address; $fake->questions; $fake->stop; # stopped when the object goes, too
package FakeDaemon;

use strict;
use warnings;
use parent 'FakeServer';
use Socket qw(SOL_SOCKET SO_LINGER);
use Time::HiRes qw(sleep);

sub new { my ($class) = @_; return $class->SUPER::new->answer('')->start }

sub address { "127.0.0.1:$_[0]{port}" }

sub answer {
    my ($self, $answer) = @_;
    $self->keep('answer', ref $answer ? $answer : { all => $answer });
    unlink "$self->{dir}/questions";
    return $self;
}

# The questions since the last answer was set.
sub questions { @{ $_[0]->kept('questions') // [] } }

# ---- what follows runs in the daemon's process

sub _serve {
    my ($self, $listener) = @_;
    while (1) { my $s = $listener->accept or next; $self->_converse($s); }
}

sub _is_whole {
    my ($question) = @_;
    my ($head, $body) = $question =~ /\A(.*?\r\n)\r\n(.*)\z/s or return 0;
    my ($length) = $head =~ /^Content-length: (\d+)/mi;
    return length $body >= ($length // 0);
}

# Reads until the block says enough, or the other side closes.
sub _read {
    my ($s, $enough) = @_;
    my $question = '';
    until ($enough->($question)) {
        sysread($s, $question, 65536, length $question) or last;
    }
    return $question;
}

sub _write {
    my ($s, $bytes) = @_;
    while (length $bytes) {
        my $n = syswrite $s, $bytes or return 0;
        substr($bytes, 0, $n) = '';
    }
    return 1;
}

sub _converse {
    my ($self, $s) = @_;
    my $order = $self->kept('answer');
    if (defined $order->{early}) { _write($s, $order->{early}); return; }
    if ($order->{die}) {
        _read($s, sub { length $_[0] >= $order->{die} });
        setsockopt $s, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
        return;
    }
    my $question = _read($s, \&_is_whole);
    $self->keep('questions', [$self->questions, $question]);
    if    ($order->{hang})    { _read($s, sub {0}); }
    elsif ($order->{endless}) { 1 while _write($s, $order->{endless}); }
    elsif ($order->{drip}) {
        my ($bytes, $pause) = @{ $order->{drip} };
        for (split //, $bytes) { _write($s, $_) or last; sleep $pause; }
    }
    else { _write($s, $order->{all}); }
}

1;
