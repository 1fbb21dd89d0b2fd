# An OwnHttpd for suites of scanners that judge spam: a host for each of a scanner's settings, which
# delivers into Maildirs, the web page of Teacher, and mails to send there.
#
#   my $h = SpamHttpd->new(scanners => { plain => 'spamd 127.0.0.1:783', .. })->start;
#   my ($reply, $arrived) = $h->mail('plain', "${head}Subject: buy\r\n\r\n$gtube\r\n");
#   $h->mail('plain', $text, from => .., rcpt => ..);
#   $h->teach('spamd', address => .., verb => 'spam', message => $head . words(1));  # see Teacher
package SpamHttpd;

use strict;
use warnings;
use parent 'OwnHttpd';
use Exporter qw(import);
use POSIX qw(strftime);
use SmallFile;
use Teacher;

our @EXPORT = qw($gtube $head words);
our $gtube = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X';
our $head = "From: a\@b.test\r\nTo: c\@d.test\r\n"
    . strftime("Date: %a, %d %b %Y %H:%M:%S +0000\r\n", gmtime)
    . "Message-ID: <1.2.3.4.5.6.7.8\@b.test>\r\n";

sub new {
    my ($class, %a) = @_;
    my $teacher = Teacher->new;
    return $class->SUPER::new(teacher => $teacher, serial => 0, others => [], %a,
        main  => $teacher->main . "SmtpdSpool directory=%DIR%/spool\nSmtpdTimeout scan=20\n",
        hosts => { teacher => $teacher->host, map { $_ => <<"CONF" } keys %{ $a{scanners} } });
SmtpdEngine on
SmtpdHostname $_.test
SmtpdRelay maildir:%DIR%/maildir/$_/%u
SmtpdScanner $a{scanners}{$_}
CONF
}

# Sends a mail, to a recipient of its own and those of new(others => ..) if not said: the reply, and
# what arrived for the former.
sub mail {
    my ($self, $host, $text, %a) = @_;
    my $c = $self->client($host, timeout => 30);
    my $user = 'u' . ++$self->{serial};
    $c->mail($a{from} // 'a@b.test', $a{rcpt} // ["$user\@d.test", @{ $self->{others} }], $text);
    my ($reply) = $c->heard =~ /(.*)\z/;
    $c->quit;
    my ($file) = glob "$self->{dir}/maildir/$host/$user/new/*";
    return ($reply, $file ? slurp($file) : '');
}

sub teach { my ($self, @how) = @_; return $self->{teacher}->ask($self->port('teacher'), @how) }

# Many words that no other mail has, the same ones for a seed.
sub words {
    my ($seed) = @_;
    srand $seed;
    my $words = join ' ', map { join '', map { chr 97 + rand 26 } 1 .. 8 } 1 .. 60;
    return $words =~ s/(.{1,60}) /$1\r\n/gr . "\r\n";
}

1;
