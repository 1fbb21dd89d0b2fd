# Everything that the NaviServer module offers, row by row of docs/parity.md: each row names a test, and
# each test here is one row's. A row without a test or a test without a row is a failure, and so are
# tables of another length than the reference's. What is tested in depth elsewhere is only shown here.
use strict;
use warnings;
use ParityCommands;
use ParityFlags;
use ParityParameters;
use ParityProcs;
use ParitySession;
use ParityWorld;
use TestHost qw(slurp);
use Test::More;

# Rows: [heading, the old name, test]; a row's third column is the test's name.
my ($heading, @rows) = ('');
for (split /\n/, slurp("$ParityWorld::tree/docs/parity.md")) {
    $heading = $1 if /^## (.*)/;
    s/\\\|/!/g;
    my (undef, @cell) = map { s/^\s+|\s+$//gr } split /\|/;
    push @rows, [$heading, $cell[0], $1] if @cell == 4 && $cell[2] =~ /^`([^`]+)`$/;
}
my @tests = (ParityCommands::tests(), ParitySession::tests(), ParityFlags::tests(), ParityParameters::tests(),
    ParityProcs::tests());
my (%test, %row, %count, %commands);
while (my ($name, $code) = splice @tests, 0, 2) {
    fail("two tests are called $name") if $test{$name};
    $test{$name} = $code;
}
$row{ $_->[2] }++ for @rows;
$count{ $_->[0] }++ for @rows;
$commands{$_}++ for map { $_->[2] =~ /^command (\w+)/ ? "$1" : () } @rows;
is_deeply [grep { !$test{$_} } sort keys %row], [], 'every row has a test';
is_deeply [grep { !$row{$_} } sort keys %test], [], 'every test has a row';
is_deeply [grep { $row{$_} > 1 } sort keys %row], [], 'a test for each row';
is scalar keys %commands, 33, 'subcommands';
is $count{'Flags'}, 18, 'the sixteen flags, and two without a name';
is $count{'Parameters'}, 42, 'parameters';
is $count{'Callbacks'}, 6, 'callbacks';
is $count{'Library'}, 9, 'procs of the library';

my $w = ParityWorld->new;
for (@rows) {
    my ($name) = $_->[2];
    my $code = $test{$name} or next;
    subtest $name => sub {
        $w->script;
        eval { $code->($w); 1 } or fail("it ends: $@");
        done_testing;
    };
}
$w->httpd->stop;
is_deeply [$w->httpd->crashes], [], 'no child crashed';
done_testing;
