# Postfix as a peer, on PostfixInstance of the tests: before-queue with smtpd_proxy_filter, or the
# ordinary way through its queue. Its limits on connections are raised, nothing else is tuned.
package PeerPostfix;

use strict;
use warnings;
use parent 'PostfixInstance';
use ProcessTree;

# The tests' instance delivers to a Maildir; this one has a client that goes to the sink.
sub _configure {
    my ($self) = @_;
    $self->SUPER::_configure;
    $self->write_file('etc/master.cf', $self->read_file('etc/master.cf')
        . "smtp unix - - n - - smtp\nrelay unix - - n - - smtp\n");
}

my %limits = (
    default_process_limit               => 3000,
    smtpd_client_connection_count_limit => 0,
    smtpd_relay_restrictions            => 'permit_mynetworks, reject',
    smtpd_recipient_restrictions        => '',
    disable_dns_lookups                 => 'yes',
    in_flow_delay                       => '1s',
    # What the tests' instance turns off and Postfix has on.
    always_add_missing_headers          => 'no',
    disable_mime_input_processing       => 'no',
    local_header_rewrite_clients        => 'permit_inet_interfaces',
);

sub run {
    my ($c, %main) = @_;
    die "Postfix must be started by root\n" if $> != 0;
    my $p = PeerPostfix->new(dir => $c->{dir}, main => { %limits, %main })->start;
    return { port => $p->port, trees => [ProcessTree->of($p->pid)], stop => sub { $p->stop },
        said => sub { substr $p->log, -1500 } };
}

sub proxy_filter { my ($c) = @_; return run($c, smtpd_proxy_filter => '127.0.0.1:' . $c->{sink}->port) }

sub queue {
    my ($c) = @_;
    return run($c, virtual_mailbox_domains => '', relayhost => '[127.0.0.1]:' . $c->{sink}->port);
}

1;
