# The relay behind every target: one smtp-sink, and its own count of mails, so that one that is lost
# or comes twice is seen. It also tells how many connections it has.
#
#   my $sink = Sink->new($directory);
#   my $before = $sink->mails; ..; $sink->wait_for($before + $sent, 60);
package Sink;

use strict;
use warnings;
use FreePort;
use ProcessTree;
use Time::HiRes qw(sleep time);

sub new {
    my ($class, $dir) = @_;
    my $self = bless { port => FreePort::pick(), counts => "$dir/sink.counts" }, $class;
    $self->{process} = ProcessTree->start(
        command => ['smtp-sink', ($> == 0 ? ('-u', 'nobody') : ()), '-c', '-m', 4000, '-h', 'sink.test',
            "127.0.0.1:$self->{port}", 4096],
        output => $self->{counts}, log => "$dir/sink.log", port => $self->{port});
    return $self;
}

sub port    { $_[0]{port} }
sub process { $_[0]{process} }

# Sessions that ended and mails that were taken. The file grows by a record for each.
sub _counts {
    my ($self) = @_;
    open my $in, '<:raw', $self->{counts} or die "$self->{counts}: $!\n";
    my $size = -s $in;
    seek $in, $size > 400 ? $size - 400 : 0, 0;
    my $end = do { local $/; <$in> } // '';
    return $end =~ /.*sess=(\d+) quit=\d+ mesg=(\d+)/s ? ($1, $2) : (0, 0);
}

sub sessions { ($_[0]->_counts)[0] }
sub mails    { ($_[0]->_counts)[1] }

# Waits until it has so many mails; how many it has.
sub wait_for {
    my ($self, $wanted, $seconds) = @_;
    my $deadline = time + $seconds;
    my $mails;
    sleep 0.002 while ($mails = $self->mails) < $wanted && time < $deadline;
    return $mails;
}

# Established connections to it, by the kernel's table.
sub connections {
    my ($self) = @_;
    my $local = sprintf '0100007F:%04X', $self->{port};
    open my $in, '<', '/proc/net/tcp' or die "/proc/net/tcp: $!\n";
    my $n = 0;
    while (my $line = <$in>) { $n++ if $line =~ /^\s*\d+: $local [0-9A-F:]+ 01 / }
    return $n;
}

1;
