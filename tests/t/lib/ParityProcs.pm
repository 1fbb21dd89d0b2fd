# parity.t: callbacks as phases, and the library of procs as policies. Each test gets the ParityWorld.
package ParityProcs;

use strict;
use warnings;
use Test::More;

# The modules of conf/lua by plain Lua: what the code returns, as text.
sub policy {
    my ($code) = @_;
    open my $from, '-|', 'lua5.3', '-e', "package.path = '$ParityWorld::tree/conf/lua/?.lua' print((function() $code end)())"
        or die "lua5.3: $!\n";
    local $/;
    my $said = <$from> // '';
    return $said =~ s/\n\z//r;
}

# A phase's script that refuses, fails and aborts, while the client says this command.
sub callback {
    my ($phase, $before, $command) = @_;
    return sub {
        my ($w) = @_;
        my $said = sub {
            my ($code) = @_;
            $w->script;
            my $c = $w->client('drop');
            $c->cmd($_) for @$before;
            $w->script($phase => $code);
            my $reply = $command eq 'message' ? $c->data("x\r\n") : $c->cmd($command);
            return ($reply . ' ' . $c->text, $c);
        };
        is +($said->('s:setreply("550 5.7.1 No")'))[0], '550 5.7.1 No', 'setreply is the reply';
        is +($said->('raise("oops")'))[0], '451 4.3.0 Local fault; try again later', 'an error is one reply: 451';
        like join("\n", $w->httpd->logged(qr/NS0057/)), qr{/smtp/$phase has failed: .*oops}, 'and one line of the log';
        my ($reply, $c) = $said->('tell(s:getline()) s:setflag("abort")');
        is +($w->said)[0][1], $command eq 'message' ? 'DATA' : $command, 'getline is the command';
        ok $c->expect_eof, 'abort closes';
    };
}

my $mail = 'MAIL FROM:<a@b.test>';

sub tests {
    return (
    'callback initproc' => sub {
        my ($w) = @_;
        my $ran = () = $w->httpd->log('error.log') =~ /policy: asked in turn: none/g;
        is $ran, 1, 'once per start';
    },
    'callback heloproc' => callback('helo', [], 'EHLO you.test'),
    'callback mailproc' => callback('mail', [], $mail),
    'callback rcptproc' => callback('rcpt', [$mail], 'RCPT TO:<c@d.test>'),
    'callback dataproc' => callback('data', [$mail, 'RCPT TO:<c@d.test>'], 'message'),
    'callback errorproc' => sub {
        my ($w) = @_;
        $w->relay->script({ rcpt => [[reply => '550 5.1.1 nobody']] });
        $w->script(error => 'tell(s:getline()) s:setreply("452 4.2.2 Later")');
        is $w->mail('fake') . ' ' . $w->{last}->text, '452 4.2.2 Later', 'chooses the reply';
        is_deeply [$w->said], [['error', 'RCPT: 550 5.1.1 nobody']], 'knows step and reply';
        $w->script(error => 'raise("oops")');
        is $w->mail('fake'), 550, 'an error of its own changes nothing';
        $w->relay->script({ dot => [[close => 1]] });
        $w->script(error => 'tell(s:getline())');
        is $w->mail('fake'), 451, 'a relay that goes';
        like +($w->said)[0][1], qr/^end of data: 451 4\.4\.2 /, 'is told, too';
        $w->relay->script({});
    },
    'proc init' => sub {
        my ($w) = @_;
        like join("\n", $w->httpd->lines(qr/policy: asked/)), qr/asked in turn/, 'loads and logs';
        $w->page('return assert(smtpd.relay.add("x.test"))', 'sample');
        is $w->client('sample')->mail('a@b.test', 'c@listed.test', "x\r\n"), 250, 'the lists are those of the configuration';
    },
    'proc helo' => sub {
        my ($w) = @_;
        is $w->client('sample')->cmd('EHLO sample.test'), 550, 'a stranger with our name';
    },
    'proc mail' => sub {
        my ($w) = @_;
        is $w->client('sample')->cmd($mail), 250, 'says nothing alone';
    },
    'proc rcpt' => sub {
        my ($w) = @_;
        my $c = $w->client('sample');
        is join(' ', $c->pipeline($mail, 'RCPT TO:<gone@listed.test>', 'RCPT TO:<c@listed.test>')), '250 550 250', 'who is refused';
    },
    'proc data' => sub {
        my ($w) = @_;
        unlink glob $w->dir . '/spool/*.eml';
        is $w->mail('sample', rcpts => ['c@listed.test'], message => "From: x\@y.test\r\nSubject: =?utf-8?Q?a_b?=\r\n\r\nx\r\n"), 250, 'a mail';
        my @copies = glob $w->dir . '/spool/*.eml';
        is scalar @copies, 1, 'a copy in a file of its own';
        like $w->httpd->log('error.log'), qr/policy: id=\S+ sender=\S+ list=no subject="a b" files=""/, 'its line of the log';
    },
    'proc error' => sub {
        my ($w) = @_;
        $w->relay->script({ rcpt => [[reply => '550 5.1.1 nobody']] });
        is $w->mail('sample', rcpts => ['nobody@listed.test']), 550, 'the client hears the relay';
        $w->relay->script({});
        like $w->httpd->log('error.log'), qr/policy: the relay has no recipient nobody\@listed\.test/, 'the log has the address';
    },
    'proc decodeHdr' => sub {
        is policy('return require("headers").decode("=?utf-8?q?Gr=C3=BC=C3=9F_?= =?UTF-8?B?ZQ==?= an =?iso-8859-1?Q?J=FCrg?=")'),
            "Gr\xc3\xbc\xc3\x9f e an J\xc3\xbcrg", 'all words, both encodings, charsets';
        is policy('local h = require "headers" return h.decode(h.encode("J\xc3\xbcrg " .. ("x"):rep(200)):gsub("\r\n", ""))'),
            "J\xc3\xbcrg " . 'x' x 200, 'and back';
    },
    'proc decodeSender' => sub {
        my ($w) = @_;
        my $of = sub {
            my ($fields) = @_;
            $w->script(data => "package.path = '$ParityWorld::tree/conf/lua/?.lua;' .. package.path
                local who = require('senders').of(s) tell(who.address, who.list)");
            $w->mail('drop', from => 'env@b.test', message => "$fields\r\n\r\nx\r\n");
            return join ' ', map { $_ // '-' } @{ ($w->said)[0] }[1, 2];
        };
        is $of->('From: f@b.test'), 'env@b.test 0', 'the envelope\'s';
        is $of->("Sender: s\@b.test\r\nFrom: f\@b.test"), 's@b.test 0', 'Sender';
        is $of->('Reply-To: r@b.test'), 'r@b.test 0', 'Reply-To';
        is $of->("List-Id: <l.test>\r\nFrom: f\@b.test"), 'f@b.test 1', 'a list';
    },
    'proc decodeBounce' => sub {
        is policy('local m = ("Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nx\n--b\n"
            .. "Content-Type: message/delivery-status\n\nReporting-MTA: dns; m.test\n\nFinal-Recipient: rfc822; gone@far.test\n"
            .. "Action: failed\nStatus: 5.1.1\n--b--\n") local f = require("bounces").failed(m)
            return f[1].address .. " " .. f[1].status .. " " .. f[1].source'), 'gone@far.test 5.1.1 RFC 3464', 'reports first';
        is policy('local f = require("bounces").failed("From: MAILER-DAEMON\n\nHi. This is the qmail-send program at m.test.\n"
            .. "I\'m afraid I wasn\'t able to deliver your message to the following addresses.\n\n<gone@far.test>:\n"
            .. "Sorry, no mailbox here by that name.\n") return f[1] and f[1].address'), 'gone@far.test', 'patterns after';
    },
    );
}

1;
