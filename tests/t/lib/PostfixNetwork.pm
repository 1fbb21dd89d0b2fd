# What makes a Postfix instance reachable at an address that is not loopback, with the TLS that
# Debian's package configures out of the box, main.cf.tls: opportunistic, with the self-signed
# certificate of ssl-cert, or where that was not made, with one just like it.
#   default   that and nothing more
#   asking    asks for a client certificate of client_ca() too, and writes its Received with TLS
#
#   my $n = PostfixNetwork->new(dir => $dir, address => '192.0.2.1');    # $dir/etc exists
#   $n->services; $n->main; $n->variables;
package PostfixNetwork;

use strict;
use warnings;
use FreePort;
use TestCA;

my $packaged = '/usr/share/postfix/main.cf.tls';

sub new {
    my ($class, %a) = @_;
    my $self = bless {%a}, $class;
    my %taken;
    for my $name (qw(default asking)) {
        my $port = FreePort::pick($self->{address});
        $port = FreePort::pick($self->{address}) while $taken{$port}++;
        $self->{port}{$name} = $port;
    }
    mkdir "$self->{dir}/network" or die "$self->{dir}/network: $!\n";
    $self->{ca} = TestCA->new(dir => "$self->{dir}/network", name => 'The CA of clients');
    $self->{client} = $self->{ca}->issue('client', cn => 'our client');
    $self->{tls} = { $self->_packaged };
    return $self;
}

# The settings of Postfix's server side in the package.
sub _packaged {
    my ($self) = @_;
    open my $in, '<', $packaged or die "$packaged: $!\n";
    my %tls = map { /^(smtpd_tls_\w+)\s*=\s*(\S+)\s*$/ ? ($1 => $2) : () } <$in>;
    my $is_made = -r $tls{smtpd_tls_cert_file} && -r $tls{smtpd_tls_key_file};
    return (%tls, $is_made ? () : $self->_self_signed);
}

sub _self_signed {
    my ($self) = @_;
    my ($cert, $key) = map {"$self->{dir}/network/snakeoil.$_"} qw(pem key);
    my $said = `openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=relay.test \\
        -addext subjectAltName=DNS:relay.test -keyout '$key' -out '$cert' 2>&1`;
    $? == 0 or die "openssl: $said";
    return (smtpd_tls_cert_file => $cert, smtpd_tls_key_file => $key);
}

# For main.cf.
sub main { return () }

# The lines of master.cf.
sub services {
    my ($self) = @_;
    my %more = (default => {}, asking => {
        smtpd_tls_ask_ccert => 'yes', smtpd_tls_CAfile => $self->{ca}->file,
        smtpd_tls_received_header => 'yes',
    });
    my @lines;
    for my $name (sort keys %more) {
        my %o = (%{ $self->{tls} }, smtpd_tls_loglevel => 1, mynetworks => "$self->{address}/32",
            syslog_name => "postfix/$name", %{ $more{$name} });
        push @lines, "$self->{address}:$self->{port}{$name} inet n - n - - smtpd",
            map {"  -o { $_ = $o{$_} }"} sort keys %o;
    }
    return @lines;
}

# What a suite needs to know, by the names that it has in the environment.
sub variables {
    my ($self) = @_;
    return (
        POSTFIX_NETWORK => join(',', map {"$_:$self->{port}{$_}"} qw(default asking)),
        POSTFIX_CLIENT  => $self->{client}{both},
    );
}

1;
