# What makes a Postfix instance a submission server too: ports where TLS and credentials are
# required, even of clients that may relay without them elsewhere. Each port has a certificate that
# is good, or bad in one way, to who trusts ca(). It makes the CAs, certificates and the database of
# passwords below the instance's directory and gives PostfixInstance the lines for its master.cf.
#
#   my $s = PostfixSubmission->new(dir => $dir, taken => [$port]);    # $dir/etc exists
#   $s->services; $s->main; $s->variables;
package PostfixSubmission;

use strict;
use warnings;
use FreePort;
use SmallFile;
use TestCA;

# name of the port and in the log (postfix/NAME/smtpd) => CA, subjectAltName, days of validity, what
# differs from %submission
my %service = (
    right     => ['ours',    'localhost',      30, {}],
    wrongname => ['ours',    'elsewhere.test', 30, {}],
    expired   => ['ours',    'localhost',      -1, {}],
    otherca   => ['another', 'localhost',      30, {}],
    login     => ['ours',    'localhost',      30, { smtpd_sasl_mechanism_filter => 'login' }],
    implicit  => ['ours',    'localhost',      30, { smtpd_tls_wrappermode => 'yes' }],
);

# The colon in the password is also what separates the two.
my ($user, $password, $realm) = ('submitter', 'Tide:9-Harbour', 'relay.test');

my %submission = (
    smtpd_tls_security_level        => 'encrypt',
    smtpd_tls_auth_only             => 'yes',
    smtpd_tls_loglevel              => 1,
    smtpd_tls_received_header       => 'yes',
    smtpd_sasl_auth_enable          => 'yes',
    smtpd_sasl_local_domain         => $realm,
    smtpd_sasl_authenticated_header => 'yes',
    smtpd_relay_restrictions        => 'permit_sasl_authenticated, reject',
);

# What keeps Postfix from checking passwords here, in words; '' if nothing does.
sub missing {
    my $found = grep { -x "$_/saslpasswd2" } split /:/, $ENV{PATH} // '';
    return $found ? '' : 'saslpasswd2 is not installed';
}

sub new {
    my ($class, %a) = @_;
    my $self = bless {%a}, $class;
    my %taken = map { $_ => 1 } @{ $self->{taken} };
    for my $name (keys %service) {
        my $port = FreePort::pick();
        $port = FreePort::pick() while $taken{$port}++;
        $self->{port}{$name} = $port;
    }
    $self->_make_certificates;
    $self->_make_passwords;
    return $self;
}

sub ca { "$_[0]{dir}/tls/ours/ca.pem" }

sub _directory {
    my ($dir) = @_;
    -d $dir or mkdir $dir or die "$dir: $!\n";
    chmod 0755, $dir;
    return $dir;
}

sub _make_certificates {
    my ($self) = @_;
    my $dir = _directory("$self->{dir}/tls");
    my %ca = map { $_ => TestCA->new(dir => _directory("$dir/$_"), name => "The CA $_") }
        qw(ours another);
    for my $name (keys %service) {
        my ($ca, $host, $days) = @{ $service{$name} };
        $self->{pair}{$name} = $ca{$ca}->issue($name, names => [$host], days => $days);
    }
}

# Debian's Postfix heeds no cyrus_sasl_config_path: it reads sasl/smtpd.conf beside main.cf, and if
# there is none, asks the system's database.
sub _make_passwords {
    my ($self) = @_;
    my $dir = $self->{sasl} = _directory("$self->{dir}/etc/sasl");
    spew("$dir/smtpd.conf", "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: $dir/passwords\n"
        . "mech_list: PLAIN LOGIN\n");
    open my $to, '|-', 'saslpasswd2', '-c', '-p', '-f', "$dir/passwords", '-u', $realm, $user
        or die "saslpasswd2: $!\n";
    print {$to} $password;
    close $to or die "saslpasswd2 made no user\n";
    chown -1, scalar getgrnam 'postfix', "$dir/passwords";
    chmod 0640, "$dir/passwords";
}

# For main.cf.
sub main { return (cyrus_sasl_config_path => $_[0]{sasl}) }

# The lines of master.cf.
sub services {
    my ($self) = @_;
    my @lines;
    for my $name (sort keys %service) {
        my %o = (%submission, %{ $service{$name}[3] }, syslog_name => "postfix/$name",
            smtpd_tls_cert_file => $self->{pair}{$name}{cert},
            smtpd_tls_key_file  => $self->{pair}{$name}{key});
        push @lines, "127.0.0.1:$self->{port}{$name} inet n - n - - smtpd",
            map {"  -o { $_ = $o{$_} }"} sort keys %o;
    }
    return @lines;
}

# What a suite needs to know, by the names that it has in the environment.
sub variables {
    my ($self) = @_;
    return (
        POSTFIX_SUBMISSION  => join(',', map {"$_:$self->{port}{$_}"} sort keys %service),
        POSTFIX_CREDENTIALS => "$user:$password",
        POSTFIX_CA          => $self->ca,
    );
}

1;
