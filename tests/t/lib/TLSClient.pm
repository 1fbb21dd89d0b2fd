# An SMTPClient that speaks TLS: after STARTTLS, or at once with implicit => 1. The certificate is
# not verified unless `tls` says so; `tls` holds further arguments of IO::Socket::SSL.
#
#   my $c = TLSClient->new(port => $port);            # greeted, EHLO said, TLS, EHLO said again
#   my $c = TLSClient->new(port => $port, implicit => 1, tls => { SSL_cert_file => .. });
#   my $c = TLSClient->new(port => $port, ehlo => 0); # TLS, but nothing said inside it
#   TLSClient::secure($client, %tls) or ...           # an SMTPClient whose STARTTLS was answered 220
package TLSClient;

use strict;
use warnings;
use parent 'SMTPClient';
use Carp qw(croak);
use IO::Socket::SSL;
use SMTPClient;

sub new {
    my ($class, %a) = @_;
    my ($ehlo, $implicit) = (delete $a{ehlo} // 'me.test', delete $a{implicit});
    my $tls = delete $a{tls} // {};
    my $self = SMTPClient::new($class, %a, greeting => !$implicit);
    if (!$implicit) {
        $self->cmd('EHLO clear.test');
        $self->cmd('STARTTLS') == 220 or croak 'STARTTLS: ' . $self->code . ' ' . $self->text;
    }
    secure($self, %$tls) or croak "no TLS: $IO::Socket::SSL::SSL_ERROR";
    $self->read_reply if $implicit;
    $self->cmd("EHLO $ehlo") if $ehlo;
    return $self;
}

# True when the handshake went well as far as the client knows.
sub secure {
    my ($self, %tls) = @_;
    my $socket = $self->socket;
    $socket->blocking(1);
    my $ok = IO::Socket::SSL->start_SSL($socket, SSL_verify_mode => SSL_VERIFY_NONE,
        Timeout => $self->{timeout}, %tls);
    $socket->blocking(0);
    return $ok;
}

1;
