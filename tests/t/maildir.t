# Delivery to Maildirs: the bytes, the added lines, several recipients, names that want out.
use strict;
use warnings;
use TestHost;
use Test::More tests => 6;

my $root = server_root() . '/maildir';
my $domain = "m$$.test";

sub files { my @found = glob "$root/$domain/$_[0]/new/*"; return @found }

my $c = client('smtp_maildir', ehlo => 'me.test', timeout => 30);
my $body = "Subject: hello\r\n\r\n.dot\r\n..two\r\n\r\nlast \xe9\0 line\r\n";
is $c->mail('a@b.test', "bob\@$domain", $body), 250, 'a mail is taken';

subtest 'and is there when the 250 is' => sub {
    plan tests => 5;
    my @files = files('bob');
    is scalar(@files), 1, 'one file';
    my $text = @files ? slurp($files[0]) : '';
    my ($head, $rest) = $text =~ /\A(.*?)(Subject: .*)\z/s;
    like $head // '', qr/^Return-Path: <a\@b\.test>\n/, 'Return-Path first';
    like $head // '', qr/^Delivered-To: bob\@\Q$domain\E\n/m, 'Delivered-To';
    like $head // '', qr/^Received: from me\.test .*\bwith ESMTP\b/ms, 'Received with its keyword';
    (my $want = $body) =~ s/\r\n/\n/g;
    is $rest, $want, 'the message byte for byte, with LF line ends';
};

subtest 'every recipient gets a file' => sub {
    plan tests => 3;
    is $c->mail('', ["one\@$domain", "two\@$domain"], "x\r\n"), 250, 'taken';
    is scalar(my @f = files($_)), 1, $_ for qw(one two);
};

subtest 'nothing is left behind in tmp' => sub {
    plan tests => 1;
    is_deeply [glob "$root/$domain/*/tmp/*"], [], 'empty';
};

subtest 'names cannot leave the directory' => sub {
    plan tests => 5;
    for my $local ('..', '../../x', '/etc/x', '.', 'a/b') {
        my $code = $c->mail('', "\"$local\"\@$domain", "x\r\n");
        like $code, qr/^(?:250|550|553)$/, "\"$local\" is taken or refused: $code";
        $c->cmd('RSET');
    }
};

subtest 'and none did' => sub {
    plan tests => 2;
    my @outside = grep { !m{^\Q$root\E/[^/]+/[^/]+/new/[^/]+$} } split /\n/, `find '$root' -type f`;
    is_deeply \@outside, [], 'files lie only where Maildirs have them';
    ok !-e server_root() . '/x' && !-e '/etc/x', 'nothing beside or above';
};
