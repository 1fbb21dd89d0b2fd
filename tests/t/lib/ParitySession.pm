# parity.t: the subcommands of a session, now methods of its handle. Each test gets the ParityWorld.
package ParitySession;

use strict;
use warnings;
use Test::More;
use TestHost qw(slurp);

my $two = [rcpts => ['one@d.test', 'two@d.test']];

# What the relay gets of a mail to two recipients when a data phase does this.
sub after {
    my ($w, $code, %a) = @_;
    return $w->relayed(sub { $w->script(data => $code, %{ $a{phases} // {} }); $w->mail('fake', @$two, %a) });
}

sub tests {
    return (
    'command gethdr' => sub {
        my ($w) = @_;
        is_deeply [$w->tells('s:gethdr("x-two"), s:gethdr("none"), s:gethdr("Subject")')], [2, undef, 'x'], 'the last, none, any case';
    },
    'command gethdrs' => sub {
        my ($w) = @_;
        my ($values, $n, $first) = $w->tells('s:gethdrs("X-Two"), #s:gethdrs(), s:gethdrs()[1]',
            message => "A: 1\r\nX-Two: 1\r\nX-Two: 2\r\n\r\nx\r\n");
        is_deeply $values, [1, 2], 'in the message\'s order';
        cmp_ok $n, '>=', 3, 'all fields';
        is ref $first, 'ARRAY', 'with name and value';
    },
    'command getbody' => sub {
        my ($w) = @_;
        my ($offset, $size, $body, $n) = $w->tells('o, n, m:sub(o + 1), #m', before => 'local m, o, n = s:getbody()',
            message => "A: b\r\n\r\n.dot\xff\r\n");
        is $body, ".dot\xff\r\n", 'the body begins behind the offset, dots unstuffed, octets as they came';
        is $size, $n, 'the size is the message\'s';
    },
    'command getfrom' => sub {
        my ($w) = @_;
        is_deeply [$w->tells('s:getfrom()', from => 'Me+X@B.test')], ['Me+X@B.test'], 'as it was written';
        is_deeply [$w->tells('s:getfrom()', from => '')], [''], 'the null sender';
    },
    'command setfrom' => sub {
        my ($w) = @_;
        is after($w, 'tell(s:setfrom("new@b.test"))')->{from}, 'new@b.test', 'the relay hears it';
        is_deeply [$w->tells('s:setfrom("no address\r\n")')]->[0], undef, 'what is none is refused';
    },
    'command getfromdata' => sub {
        my ($w) = @_;
        is_deeply [$w->tells('s:getfromdata()', phases => { mail => 's:setfromdata("kept\0")' })], ["kept\0"], 'from mail to data';
    },
    'command setfromdata' => sub {
        my ($w) = @_;
        $w->script(mail => 'if s:getfrom() == "a@b.test" then s:setfromdata("first") end', data => 'tell(s:getfromdata())');
        my $c = $w->client('drop');
        $c->mail($_, 'c@d.test', "x\r\n") for 'a@b.test', 'e@b.test';
        is_deeply [$w->said], [['data', 'first'], ['data', undef]], 'of one mail';
    },
    'command getrcpt' => sub {
        my ($w) = @_;
        my ($all, $first, $newest, $none) = $w->tells('s:getrcpt(), s:getrcpt(1).address, s:getrcpt(-1).address, (s:getrcpt(3))', @$two);
        is_deeply [map { $_->{address} } @$all], ['one@d.test', 'two@d.test'], 'all, in the order of RCPT';
        is_deeply [$first, $newest, $none], ['one@d.test', 'two@d.test', undef], 'by number, -1 the newest';
        is $all->[0]{flags} & 1, 1, 'with flags';
        is $all->[0]{score}, 0, 'and score';
        is_deeply [$w->tells('s:getrcpt("two@D.test").address', @$two)], ['two@d.test'], 'by address';
    },
    'command getrcptdata' => sub {
        my ($w) = @_;
        is_deeply [$w->tells('s:getrcptdata(1), s:getrcptdata("two@d.test"), (s:getrcptdata(3))', @$two,
            phases => { rcpt => 's:setrcptdata(-1, "of " .. s:getrcpt(-1).address)' })],
            ['of one@d.test', 'of two@d.test', undef], 'each has its own';
    },
    'command setrcptdata' => sub {
        my ($w) = @_;
        is_deeply [$w->tells('s:setrcptdata(2, "x"), s:getrcptdata(2), s:setrcptdata(2, nil), s:getrcptdata(2)', @$two)],
            [1, 'x', 1, undef], 'set, and dropped by nil';
    },
    'command addrcpt' => sub {
        my ($w) = @_;
        my $mail = after($w, 'tell(s:addrcpt("three@d.test", 0, "data"), s:getrcptdata(-1), (s:addrcpt("no address")))');
        is_deeply $mail->{rcpts}, ['one@d.test', 'two@d.test', 'three@d.test'], 'the relay has it';
        is_deeply [$w->said], [['data', 1, 'data', undef]], 'what is no address is refused';
    },
    'command delrcpt' => sub {
        my ($w) = @_;
        is_deeply after($w, 'tell(s:delrcpt("one@d.test"))')->{rcpts}, ['two@d.test'], 'the relay has the other';
        $w->script(data => 's:delrcpt(1) s:delrcpt(1)');
        is $w->mail('fake', @$two), 550, 'nobody is left';
        $w->script(rcpt => 's:delrcpt(-1)');
        is $w->client('drop')->mail('a@b.test', 'c@d.test', 'x'), 550, 'in rcpt it is a refusal';
    },
    'command setflag' => sub {
        my ($w) = @_;
        is_deeply after($w, 'tell(s:setflag(1, "delivered") & 8, s:setflag(2, 0x40) & 0x40, s:setflag("needdomain") & 0x100)')->{rcpts},
            ['two@d.test'], 'of a recipient, by name and by number';
        is_deeply [$w->said], [['data', 8, 0x40, 0x100]], 'the new word';
        is_deeply [$w->tells('(s:setflag("nonsense")), (s:setflag(-1, -5)), (s:setflag(9, "delivered"))')], [undef, undef, undef],
            'no flag, no number, no recipient';
    },
    'command unsetflag' => sub {
        my ($w) = @_;
        is_deeply after($w, 's:setflag(1, "delivered") tell(s:unsetflag(1, "delivered") & 8, s:unsetflag("NeedHelo") & 0x10000)')->{rcpts},
            ['one@d.test', 'two@d.test'], 'as if it had not been set';
        is_deeply [$w->said], [['data', 0, 0]], 'the new word';
    },
    'command getflag' => sub {
        my ($w) = @_;
        my ($session, $rcpt, $none) = $w->tells('s:getflag(), s:getflag("c@d.test"), (s:getflag(2))');
        is $session & 0x60002, 0x60002, 'the session: local, gothelo, gotmail';
        is $rcpt & 1, 1, 'a recipient: verified';
        is $none, undef, 'nobody';
    },
    'command setreply' => sub {
        my ($w) = @_;
        $w->script(data => 's:setreply("550 5.7.1 Not this one")');
        is $w->mail('drop') . ' ' . $w->{last}->text, '550 5.7.1 Not this one', 'is said';
        $w->script(data => 'tell((s:setreply("550 a\r\nb"))) s:setreply("250 2.6.0 Fine")');
        is $w->mail('drop') . ' ' . $w->{last}->text, '250 2.6.0 Fine', 'one line; CR and LF are an error';
        $w->script(data => 's:setreply("354 x")');
        is $w->mail('drop'), 451, 'what may not stand there';
    },
    'command getline' => sub {
        my ($w) = @_;
        $w->script(map { $_ => 'tell(s:getline())' } qw(helo mail rcpt data));
        my $c = $w->client('drop');
        $c->mail('A@b.test', 'C@d.test', "x\r\n");
        is_deeply [map { $_->[1] } $w->said], ['EHLO me.test', 'MAIL FROM:<A@b.test>', 'RCPT TO:<C@d.test>', 'DATA'], 'in every phase';
    },
    'command dump' => sub {
        my ($w) = @_;
        my $file = $w->dir . '/spool/dumped';
        is_deeply [$w->tells("s:dump('$file'), (s:dump('/no/such/folder/x'))", message => "A: b\r\n\r\n.x\r\n", host => 'fake')],
            [1, undef], 'written; nil where it cannot be';
        like slurp($file), qr/^A: b\r\n\r\n\.x\r\n\z/m, 'the message as it is';
    },
    );
}

1;
