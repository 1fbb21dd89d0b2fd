# Small files as a whole: slurp reads one, spew makes one. Both die when they cannot.
package SmallFile;

use strict;
use warnings;
use Carp qw(croak);
use Exporter qw(import);

our @EXPORT = qw(slurp spew);

sub slurp {
    my ($file) = @_;
    open my $in, '<:raw', $file or croak "$file: $!";
    local $/;
    return scalar <$in> // '';
}

sub spew {
    my ($file, $text) = @_;
    open my $out, '>:raw', $file or croak "$file: $!";
    print {$out} $text;
    close $out or croak "$file: $!";
    return $file;
}

1;
