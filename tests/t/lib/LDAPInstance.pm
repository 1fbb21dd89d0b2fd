# A real OpenLDAP server of its own: configuration and entries below one private directory, on a
# free loopback port, run by whoever runs the test. It holds ou=people and ou=groups below
# dc=example,dc=test with the given users, and reads no file of the system but the core schema.
# A bind without a password succeeds here, as an anonymous one: who sends it on lets anybody in.
# It is stopped when the object goes.
#
#   LDAPInstance->missing and plan skip_all => LDAPInstance->missing;
#   my $ldap = LDAPInstance->new(users => { alice => 'secret' }, groups => { staff => ['alice'] });
#   $ldap->start; $ldap->url; $ldap->dn('alice'); $ldap->whoami('alice', 'secret'); $ldap->stop;
package LDAPInstance;

use strict;
use warnings;
use parent 'PrivateServer';
use Carp qw(croak);
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);

my $suffix = 'dc=example,dc=test';

sub _schema {
    my ($file) = grep { -r } map {"$_/schema/core.schema"} qw(/etc/ldap /etc/openldap
        /usr/local/etc/openldap);
    return $file;
}

# What keeps it from running here, in words; '' if nothing does.
sub missing {
    my @missing = grep { !PrivateServer::program($_) } qw(slapd slapadd ldapwhoami);
    push @missing, 'core.schema' unless _schema();
    return @missing ? 'OpenLDAP is not complete here, without ' . join ', ', @missing : '';
}

sub new {
    my ($class, %a) = @_;
    my $self = $class->SUPER::new(users => {}, groups => {}, %a);
    mkdir "$self->{dir}/entries", 0700 or croak "$self->{dir}/entries: $!";
    $self->write_file('slapd.conf', $self->_configuration);
    $self->write_file('entries.ldif', $self->_entries);
    $self->_fill;
    return $self;
}

sub url { "ldap://127.0.0.1:$_[0]{port}" }

sub people { "ou=people,$suffix" }
sub dn       { my ($self, $user) = @_; return "uid=$user,ou=people,$suffix" }
sub group_dn { my ($self, $group) = @_; return "cn=$group,ou=groups,$suffix" }

# The ldif backend is in every slapd, where mdb may be a module in some directory.
sub _configuration {
    my ($self) = @_;
    return 'include ' . _schema() . "\n" . <<"CONF";
allow bind_anon_dn
database ldif
suffix "$suffix"
directory $self->{dir}/entries
access to attrs=userPassword by anonymous auth by * none
access to * by * read
CONF
}

sub _entry { my ($dn, @lines) = @_; return join "\n", "dn: $dn", @lines, '', '' }

sub _entries {
    my ($self) = @_;
    my $text = _entry($suffix, 'objectClass: dcObject', 'objectClass: organization',
        'dc: example', 'o: Example');
    $text .= _entry("ou=$_,$suffix", 'objectClass: organizationalUnit', "ou: $_") for qw(people groups);
    for my $user (sort keys %{ $self->{users} }) {
        my $password = encode_base64($self->{users}{$user}, '');
        $text .= _entry($self->dn($user), (map {"objectClass: $_"} qw(organizationalRole uidObject
            simpleSecurityObject)), "uid: $user", "cn: $user", "userPassword:: $password");
    }
    for my $group (sort keys %{ $self->{groups} }) {
        $text .= _entry($self->group_dn($group), 'objectClass: groupOfNames', "cn: $group",
            map { 'member: ' . $self->dn($_) } @{ $self->{groups}{$group} });
    }
    return $text;
}

# A program to its end: what it said, with $? as it left it.
sub _run {
    my ($self, @command) = @_;
    my $line = join ' ', map { my $a = $_; $a =~ s/'/'\\''/g; "'$a'" } @command;
    return scalar `$line 2>&1 </dev/null`;
}

sub _fill {
    my ($self) = @_;
    my $dir = $self->{dir};
    my $said = $self->_run(PrivateServer::program('slapadd'), '-f', "$dir/slapd.conf", '-l', "$dir/entries.ldif");
    croak "slapadd failed: $said" if $?;
}

sub start {
    my ($self) = @_;
    $self->spawn(PrivateServer::program('slapd'), '-h', $self->url, '-f', "$self->{dir}/slapd.conf", '-d', 0);
    return $self->wait_until(sub {
        IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port});
    });
}

# Who a bind with this password is: "dn:uid=..", "anonymous", or the error.
sub whoami {
    my ($self, $user, $password) = @_;
    my $said = $self->_run(PrivateServer::program('ldapwhoami'), '-x', '-H', $self->url, '-D', $self->dn($user),
        '-w', $password);
    chomp $said;
    return $said;
}

1;
