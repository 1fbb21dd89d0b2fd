# A small SVG of a series: two measures over the same points, a panel each side by side, so that neither
# needs the other's axis. Points are medians, the bars through them reach from the least round to the
# most. Plain elements only: no script, no style sheet, no library. Knows nothing of mail.
#
#   print {$out} Plot::svg(title => .., x_title => .., labels => [..], x => [..],
#       panels => [{ title => .., y => [[median, least, most], ..], log => 1 }, {..}]);
package Plot;

use strict;
use warnings;
use List::Util qw(max min);
use POSIX qw(floor);

my ($width, $height) = (640, 360);
my ($top, $bottom, $left, $gap) = (66, 300, 52, 62);
my $panel  = ($width - 18 - $left - $gap) / 2;
my @colour = ('#1f5fa8', '#b5480f');

# Ticks at 1, 2 or 5 times a power of ten, at most so many, from 0 to beyond the largest value.
sub _linear {
    my ($most) = @_;
    my $unit = 10**floor(log($most) / log 10);
    my ($step) = grep { $most / $_ <= 5 } map { $_ * $unit } 0.1, 0.2, 0.5, 1, 2;
    my $end = POSIX::ceil($most / $step - 1e-9);
    return (sub { $_[0] / ($end * $step) }, map { $_ * $step } 0 .. $end);
}

# 1, 2 and 5 of each power of ten, or the powers alone where that is too many.
sub _logarithmic {
    my ($least, $most) = @_;
    my @powers = floor(log($least) / log(10) + 1e-9) .. POSIX::ceil(log($most) / log(10) - 1e-9);
    my @all = map { my $p = 10**$_; map { $_ * $p } 1, 2, 5 } @powers;
    my $from = max(grep { $_ <= $least * (1 + 1e-9) } @all);
    my $to = min((grep { $_ >= $most * (1 - 1e-9) } @all), 10**($powers[-1] + 1));
    $to = $from * 10 if $to <= $from;
    my @ticks = grep { $_ >= $from && $_ <= $to } @all;
    @ticks = grep { sprintf('%e', $_) =~ /^1\.0+e/ } @ticks if @ticks > 8;
    return (sub { log($_[0] / $from) / log($to / $from) }, @ticks);
}

sub _text {
    my ($x, $y, $text, %a) = @_;
    $text =~ s/&/&amp;/g;
    $text =~ s/</&lt;/g;
    my $more = join '', map {" $_=\"$a{$_}\""} sort keys %a;
    return sprintf qq{<text x="%.1f" y="%.1f"%s>%s</text>\n}, $x, $y, $more, $text;
}

sub _line {
    my ($x1, $y1, $x2, $y2, $colour) = @_;
    return sprintf qq{<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s"/>\n}, $x1, $y1, $x2, $y2, $colour;
}

# Places on the x axis by the logarithm of their values, since each series doubles or thereabouts.
sub _places {
    my ($from, @x) = @_;
    my $span = @x > 1 ? log($x[-1] / $x[0]) : 1;
    return map { $from + 12 + ($panel - 24) * log($_ / $x[0]) / $span } @x;
}

sub _panel {
    my ($n, $p, $a) = @_;
    my $from = $left + $n * ($panel + $gap);
    my @values = map {@$_} @{ $p->{y} };
    my ($part, @ticks) = $p->{log} ? _logarithmic(min(@values), max(@values)) : _linear(max(@values));
    my $y = sub { $bottom - ($bottom - $top) * $part->($_[0]) };
    my $svg = _text($from, $top - 12, $p->{title}, fill => $colour[$n], 'font-weight' => 'bold');
    for my $tick (@ticks) {
        $svg .= _line($from, $y->($tick), $from + $panel, $y->($tick), '#dddddd');
        $svg .= _text($from - 6, $y->($tick) + 4, $tick + 0, 'text-anchor' => 'end');
    }
    my @x = _places($from, @{ $a->{x} });
    for my $i (0 .. $#x) {
        $svg .= _line($x[$i], $bottom, $x[$i], $bottom + 5, '#333333');
        $svg .= _text($x[$i], $bottom + 18, $a->{labels}[$i], 'text-anchor' => 'middle');
    }
    $svg .= _line($from, $top, $from, $bottom, '#333333') . _line($from, $bottom, $from + $panel, $bottom, '#333333');
    $svg .= _text($from + $panel / 2, $bottom + 38, $a->{x_title}, 'text-anchor' => 'middle');
    my $points = join ' ', map { sprintf '%.1f,%.1f', $x[$_], $y->($p->{y}[$_][0]) } 0 .. $#x;
    $svg .= qq{<polyline points="$points" fill="none" stroke="$colour[$n]" stroke-width="2"/>\n};
    for my $i (0 .. $#x) {
        my ($median, $least, $most) = @{ $p->{y}[$i] };
        $svg .= _line($x[$i], $y->($least), $x[$i], $y->($most), $colour[$n]);
        $svg .= sprintf qq{<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>\n}, $x[$i], $y->($median), $colour[$n];
    }
    return $svg;
}

sub svg {
    my (%a) = @_;
    return qq{<svg xmlns="http://www.w3.org/2000/svg" width="$width" height="$height" }
        . qq{viewBox="0 0 $width $height" font-family="sans-serif" font-size="11" fill="#333333">\n}
        . qq{<rect width="$width" height="$height" fill="#ffffff"/>\n}
        . _text($width / 2, 24, $a{title}, 'text-anchor' => 'middle', 'font-size' => 14)
        . join('', map { _panel($_, $a{panels}[$_], \%a) } 0 .. $#{ $a{panels} }) . "</svg>\n";
}

1;
