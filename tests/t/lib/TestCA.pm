# A certificate authority for tests, made by openssl in a private temporary directory that goes with
# the object. Keys are EC, since those are quick to make.
#
#   my $ca = TestCA->new;                            # or TestCA->new(dir => $kept_by_the_caller)
#   my $pair = $ca->issue('mail', names => ['localhost']);  # { cert, key, both } are PEM files
#   $ca->issue('old', names => ['localhost'], days => -1);  # expired since yesterday
#   $ca->issue('alice', cn => 'alice');              # a client's certificate
#   $ca->file;                                       # its own certificate
package TestCA;

use strict;
use warnings;
use Carp qw(croak);
use File::Temp ();
use SmallFile;

sub new {
    my ($class, %a) = @_;
    my $self = bless { name => 'Test CA', %a, serial => 1 }, $class;
    $self->{temp} = File::Temp->newdir('test-ca.XXXXXX', TMPDIR => 1) unless $self->{dir};
    $self->{dir} //= "$self->{temp}";
    chmod 0755, $self->{dir};
    $self->_openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
        '-days', 30, '-subj', "/CN=$self->{name}", '-keyout', "$self->{dir}/ca.key", '-out', $self->file);
    return $self;
}

sub file { "$_[0]{dir}/ca.pem" }

sub _openssl {
    my ($self, @args) = @_;
    open my $from, '-|', join(' ', map { "'$_'" } 'openssl', @args) . ' 2>&1' or croak "openssl: $!";
    my $said = do { local $/; <$from> } // '';
    close $from or croak "openssl @args: $said";
    return $said;
}

# names become subjectAltNames, the first of them the common name unless cn says another.
sub issue {
    my ($self, $id, %a) = @_;
    my @names = @{ $a{names} || [] };
    my $file = "$self->{dir}/$id";
    my $cn = $a{cn} // $names[0] // $id;
    my $days = $a{days} // 30;
    $self->_openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
        '-subj', "/CN=$cn", '-keyout', "$file.key", '-out', "$file.csr");
    spew("$file.ext", "basicConstraints=critical,CA:FALSE\n"
        . (@names ? 'subjectAltName=' . join(',', map {"DNS:$_"} @names) . "\n" : ''));
    $self->_openssl('x509', '-req', '-in', "$file.csr", '-CA', $self->file, '-CAkey',
        "$self->{dir}/ca.key", '-set_serial', ++$self->{serial}, '-days', $days, '-extfile',
        "$file.ext", '-out', "$file.pem");
    spew("$file.both", slurp("$file.pem") . slurp("$file.key"));
    chmod 0644, "$file.both", "$file.key";
    return { cert => "$file.pem", key => "$file.key", both => "$file.both" };
}

1;
