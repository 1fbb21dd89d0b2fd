# A TAP::Harness that also adds its counts to the file named by TEST_TOTALS, one line a run:
# "passed failed". tools/test adds the lines up. A program that died, ran too few tests or left a
# bad exit status counts as one failure even if each line it printed was an ok.
# Used through HARNESS_SUBCLASS (Apache::Test) and prove --harness.
package CountingHarness;

use strict;
use warnings;
use parent 'TAP::Harness';

sub aggregate_tests {
    my ($self, $aggregate, @tests) = @_;

    my $result = $self->SUPER::aggregate_tests($aggregate, @tests);
    if (my $file = $ENV{TEST_TOTALS}) {
        my $broken = grep { $_->has_problems && !@{ [ $_->failed ] } } $aggregate->parsers;
        open my $out, '>>', $file or die "$file: $!\n";
        printf {$out} "%d %d\n", scalar $aggregate->passed, $aggregate->failed + $broken;
        close $out or die "$file: $!\n";
    }
    return $result;
}

1;
