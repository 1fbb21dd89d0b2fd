# The web page of scanner/mod_test_teacher.c, which is built here from the public header: it asks a
# scanner for its version and teaches it.
#
#   my $teacher = Teacher->new or BAIL_OUT ...;
#   OwnHttpd->new(main => $teacher->main, hosts => { teacher => $teacher->host, .. });
#   $teacher->ask($port, 'spamd', address => .., keys => .., verb => 'version');   # "ok SpamAssassin .."
#   $teacher->ask($port, 'spamd', address => .., verb => 'spam', message => ..);   # "ok ", "no why"
package Teacher;

use strict;
use warnings;
use Carp qw(croak);
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Copy qw(copy);
use File::Temp ();
use HTTP::Tiny;

my $here = abs_path(dirname(__FILE__));

sub new {
    my ($class) = @_;
    my $self = bless { dir => File::Temp->newdir('teacher.XXXXXX', TMPDIR => 1) }, $class;
    chmod 0755, "$self->{dir}";
    copy("$here/../scanner/mod_test_teacher.c", "$self->{dir}/mod_test_teacher.c");
    my $said = `cd $self->{dir} && apxs -c -Wc,-Wall -Wc,-Wextra -I $here/../../.. mod_test_teacher.c 2>&1`;
    croak $said if !-r $self->_module || $said =~ /warning/;
    return $self;
}

sub _module { "$_[0]{dir}/.libs/mod_test_teacher.so" }
sub main    { 'LoadModule test_teacher_module ' . $_[0]->_module . "\n" }
sub host    { "SetHandler teacher\n" }

sub ask {
    my ($self, $port, $scanner, %a) = @_;
    my $message = delete $a{message} // '';
    my $answer = HTTP::Tiny->new(timeout => 30)->post("http://127.0.0.1:$port/", { content => $message,
        headers => { 'X-Scanner' => $scanner, map { ("X-\u$_" => $a{$_}) } keys %a } });
    return $answer->{success} ? $answer->{content} : "$answer->{status} $answer->{content}";
}

1;
