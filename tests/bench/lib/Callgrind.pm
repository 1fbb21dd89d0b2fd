# Instructions that httpd executes for a mail of W2, by callgrind: two runs of one process with the event
# MPM that differ in the number of mails alone, so that start and stop cancel out. No noise of the
# machine moves it. Where the instructions go is told by callgrind_annotate on the file that is kept.
package Callgrind;

use strict;
use warnings;
use File::Temp ();
use Load;
use Ours;
use ProcessTree;
use Time::HiRes qw(sleep);

my ($few, $many) = (400, 2400);

sub missing { return (grep { -x "$_/valgrind" } split /:/, $ENV{PATH}) ? '' : 'valgrind is not installed' }

# Valgrind makes its file before httpd changes user, and cannot write it after: so it is all run as that
# user, who gets the directory and a copy of the module. Gives the words to put before the command.
sub _give {
    my ($h, $dir) = @_;
    my $user = $h->{user} or return;
    system('cp', $h->{module}, "$dir/module.so") == 0 or die "cp: $?\n";
    $h->{module} = "$dir/module.so";
    system('chown', '-R', "$user:$h->{group}", $dir) == 0 or die "chown: $?\n";
    return ('setpriv', "--reuid=$user", "--regid=$h->{group}", '--clear-groups');
}

sub _run {
    my ($sink, $mails, $keep) = @_;
    my $h = Ours::build({ sink => $sink, idle => 0 }, 'event', main => "StartServers 1\n");
    my $dir = $h->dir;
    my @as_user = _give($h, $dir);
    my $file = $h->_write;
    chomp(my $httpd = `apxs -q SBINDIR` =~ s/\n//r . '/' . `apxs -q PROGNAME`);
    my $p = ProcessTree->start(
        command => [@as_user, 'valgrind', '--tool=callgrind', "--callgrind-out-file=$dir/callgrind.out.%p",
            $httpd, '-X', '-f', $file],
        log => "$dir/valgrind", port => $h->port('mail'), greets => 1, seconds => 90, grace => 60);
    my $target = bless { port => $h->port('mail'), trees => [$p], name => 'callgrind' }, 'Targets::Instance';
    Load::mails($target, $sink, mails => $mails, parallel => 20, octets => 4096, keep => 1);
    $p->stop;
    my $collected = 0;
    for my $text ($p->said) { $collected += $1 while $text =~ /Collected : (\d+)/g }
    $collected or die 'callgrind counted nothing: ' . $p->said . "\n";
    if ($keep) {
        my ($largest) = sort { -s $b <=> -s $a } glob "$dir/callgrind.out.*";
        system 'cp', $largest, $keep if $largest;
    }
    return $collected;
}

sub count {
    my ($sink, $keep) = @_;
    my $little = _run($sink, $few);
    my $much = _run($sink, $many, $keep);
    return { instructions => ($much - $little) / ($many - $few), mails => $many - $few };
}

1;
