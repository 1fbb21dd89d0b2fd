# parity.t: the flags, each by its value and by what it does. Each test gets the ParityWorld.
package ParityFlags;

use strict;
use warnings;
use SMTPClient;
use ParityWorld;
use Test::More;
use TestHost qw(wait_for);

my %value = (verified => 0x1, local => 0x2, relay => 0x4, delivered => 0x8, abort => 0x10, viruscheck => 0x20,
    spamcheck => 0x40, needdomain => 0x100, segv => 0x1000, fastproxy => 0x4000, resolve => 0x8000,
    needhelo => 0x10000, gothelo => 0x20000, gotmail => 0x40000, gotspam => 0x80000, gotvirus => 0x100000);

# The flag's value, then the rest of its test.
sub flag {
    my ($name, $code) = @_;
    return ("flag $name" => sub {
        my ($w) = @_;
        is $w->page("return smtpd.flag('$name')"), $value{$name}, 'its value';
        $code->($w, $value{$name});
    });
}

# The flags that a script sees in a phase, in order of calls: [phase, word & flag].
sub words {
    my ($w, $host, $flag, %phases) = @_;
    $w->script(map { $_ => "tell($phases{$_} & $flag)" } keys %phases);
    $w->mail($host);
    return [$w->said];
}

sub rcpt_code {
    my ($w, $host, $rcpt, $mail) = @_;
    my $c = $w->client($host);
    $c->cmd($mail // 'MAIL FROM:<a@b.test>');
    return $c->cmd("RCPT TO:<$rcpt>");
}

sub tests {
    return (
    flag(verified => sub {
        my ($w, $flag) = @_;
        is_deeply [$w->tells("s:getrcpt(1).flags & $flag")], [$flag], 'every accepted recipient has it';
        my $mail = $w->relayed(sub { $w->script(data => 's:unsetflag(1, "verified")');
            $w->mail('fake', rcpts => ['one@d.test', 'two@d.test']) });
        is_deeply $mail->{rcpts}, ['two@d.test'], 'clearing it is delrcpt';
    }),
    flag(local => sub {
        my ($w, $flag) = @_;
        is_deeply words($w, 'drop', $flag, connect => 's:getflag()'), [['connect', $flag]], 'a trusted client has it';
        is_deeply words($w, 'strange', $flag, connect => 's:getflag()'), [['connect', 0]], 'a stranger has it not';
        $w->script(mail => 's:setflag("local")');
        is rcpt_code($w, 'strange', 'x@far.test'), 250, 'a script gives it';
        $w->script(mail => 's:unsetflag("local")');
        is rcpt_code($w, 'local', 'x@far.test'), 550, 'and takes it';
    }),
    flag(relay => sub {
        my ($w, $flag) = @_;
        is_deeply [$w->tells("s:getrcpt(1).flags & $flag", host => 'strange', rcpts => ['x@sub.listed.test'])], [$flag], 'a listed domain';
        is_deeply [$w->tells("s:getrcpt(1).flags & $flag")], [0], 'another one';
    }),
    flag(delivered => sub {
        my ($w) = @_;
        my $mail = $w->relayed(sub { $w->script(data => 's:setflag("one@d.test", "delivered")');
            $w->mail('fake', rcpts => ['one@d.test', 'two@d.test']) });
        is_deeply $mail->{rcpts}, ['two@d.test'], 'is kept from the relay';
    }),
    flag(abort => sub {
        my ($w) = @_;
        $w->script(rcpt => 's:setflag("abort")');
        my $c = $w->client('drop');
        is $c->cmd('MAIL FROM:<a@b.test>'), 250, 'a mail';
        is $c->cmd('RCPT TO:<c@d.test>'), 250, 'the reply is said';
        ok $c->expect_eof, 'and the connection closed';
    }),
    flag(viruscheck => sub {
        my ($w) = @_;
        my @none = (connect => 's:unsetflag("viruscheck") s:unsetflag("spamcheck")');
        $w->script(@none);
        is $w->mail('idle'), 250, 'without it nobody scans';
        $w->script(@none, rcpt => 's:setflag("viruscheck")');
        is $w->mail('idle'), 554, 'of the session';
        $w->script(@none, rcpt => 's:setflag(-1, "viruscheck")');
        is $w->mail('idle'), 554, 'of a recipient';
        $w->script(mail => 's:unsetflag("viruscheck")');
        is $w->mail('finds'), 250, 'on by default, where there is a scanner';
    }),
    flag(spamcheck => sub {
        my ($w) = @_;
        my @none = (connect => 's:unsetflag("viruscheck") s:unsetflag("spamcheck")');
        $w->script(@none, rcpt => 's:setflag(-1, "spamcheck")');
        like $w->mail('idle'), qr/^55\d$/, 'the scanner refuses';
        $w->script(@none, rcpt => 'if s:getrcpt(-1).address == "one@d.test" then s:setflag(-1, "spamcheck") end',
            data => 'tell(s:getrcpt(1).score, s:getrcpt(2).score)');
        is $w->mail('idle', rcpts => ['one@d.test', 'two@d.test']), 250, 'not where only one of two wants it';
        is_deeply [$w->said], [['data', 9, 0]], 'who has the score';
    }),
    flag(needdomain => sub {
        my ($w) = @_;
        my $c = $w->client('needdomain');
        is $c->cmd("MAIL FROM:<a\@$_->[0]>"), $_->[1], $_->[0] for ['nowhere.test', 553], ['broken.test', 451], ['takes.test', 250];
        $w->script(helo => 's:setflag("needdomain")');
        is $w->client('dns')->cmd('MAIL FROM:<a@null.test>'), 553, 'set by a script';
    }),
    flag(segv => sub {
        my ($w) = @_;
        is $w->mail('flagged'), 250, 'means nothing';
    }),
    flag(fastproxy => sub {
        my ($w) = @_;
        my $mail = $w->relayed(sub { is $w->mail('fast'), 250, 'no scanner' });
        is $mail->{data}, $ParityWorld::message, 'the relay has the message';
        $w->script(data => 'tell(s:getbody())');
        is $w->mail('fast'), 250, 'a data phase';
        is_deeply [$w->said], [[data => undef, 'messages are not shown to scripts here (fastproxy)']], 'has no body';
        $w->script(mail => 's:setflag("fastproxy")');
        is $w->mail('finds'), 250, 'set by a script';
    }),
    flag(resolve => sub {
        my ($w) = @_;
        is(SMTPClient->new(port => $w->port('named'))->code, 220, 'a client with a name');
        is(SMTPClient->new(port => $w->port('named'), local => '127.0.0.7')->code, 554, 'one without');
    }),
    flag(needhelo => sub {
        my ($w) = @_;
        is(SMTPClient->new(port => $w->port('drop'))->cmd('MAIL FROM:<a@b.test>'), 503, 'by default');
        is(SMTPClient->new(port => $w->port('noflags'))->cmd('MAIL FROM:<a@b.test>'), 250, 'SmtpdFlags none');
        $w->script(connect => 's:setflag("needhelo")');
        is(SMTPClient->new(port => $w->port('noflags'))->cmd('MAIL FROM:<a@b.test>'), 503, 'set by a script');
    }),
    flag(gothelo => sub {
        my ($w, $flag) = @_;
        is_deeply words($w, 'drop', $flag, connect => 's:getflag()', mail => 's:getflag()'), [['connect', 0], ['mail', $flag]],
            'not before EHLO';
    }),
    flag(gotmail => sub {
        my ($w, $flag) = @_;
        is_deeply words($w, 'drop', $flag, helo => 's:getflag()', rcpt => 's:getflag()'), [['helo', 0], ['rcpt', $flag]],
            'not before MAIL';
    }),
    flag(gotspam => sub {
        my ($w, $flag) = @_;
        is_deeply [$w->tells("s:getflag() & $flag, s:getrcpt(1).flags & $flag, s:getrcpt(1).score", host => 'spam')],
            [$flag, $flag, 7.25], 'session and recipient, with the score';
    }),
    flag(gotvirus => sub {
        my ($w, $flag) = @_;
        $w->script(rcpt => "tell(s:getflag() & $flag)", data => "tell(s:getflag() & $flag)");
        my $c = $w->client('tag');
        $c->mail('a@b.test', 'c@d.test', "x\r\n") for 1 .. 2;
        is_deeply [$w->said], [['rcpt', 0], ['data', $flag], ['rcpt', 0], ['data', $flag]], 'of this mail, not of the next';
    }),
    'flag GOTSTARTTLS' => sub {
        my ($w) = @_;
        require TLSClient;
        $w->script(mail => 'tell(r.subprocess_env["SMTP_PROTOCOL"])');
        my $c = TLSClient->new(port => $w->port('tls'));
        $c->cmd('MAIL FROM:<tls@b.test>');
        is_deeply [$w->said], [['mail', 'ESMTPS']], 'SMTP_PROTOCOL';
        my ($own) = grep { ($_->{from} // '') eq 'tls@b.test' } @{ $w->page('return smtpd.sessions()') };
        is $own->{tls}, 1, 'sessions';
    },
    'flag GOTAUTHPLAIN' => sub {
        my ($w) = @_;
        is $w->mail('cafile'), 250, 'a relay that wants AUTH gets it';
        my $word = MIME::Base64::encode_base64("\0me\0p\@ss", '');
        ok scalar(grep { $_ eq "AUTH PLAIN $word" } $w->{tlsrelay}->lines('tls')), 'inside TLS';
        ok !grep({ /^AUTH/ } $w->{tlsrelay}->lines('clear')), 'and nowhere else';
    },
    );
}

1;
