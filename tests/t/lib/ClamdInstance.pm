# A clamd of a test's own, on loopback and on a unix socket, with signatures made by the test: they
# know EICAR, alone, and the file that clamav-testfiles hides in all kinds of archives. Also makes
# such messages. It is stopped, by its pid, when the object goes.
#
#   plan skip_all => 'no clamd' unless ClamdInstance::is_there();
#   my $database = ClamdInstance::signatures("$dir/db");
#   my $clamd = ClamdInstance->new(database => $database, options => "StreamMaxLength 1M\n");
#   "SmtpdScanner clamd 127.0.0.1:" . $clamd->port;  "SmtpdScanner clamd unix:" . $clamd->path
package ClamdInstance;

use strict;
use warnings;
use parent 'PrivateServer';
use Carp qw(croak);
use Digest::MD5 qw(md5_hex);
use File::Path qw(make_path);
use IO::Compress::Gzip qw(gzip);
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);
use SmallFile;

# In two pieces, so that no scanner on this host takes this file for one.
my $EICAR = 'X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-' . 'STANDARD-ANTIVIRUS-TEST-FILE!$H+H*';
my $FILES = '/usr/share/clamav-testfiles';

sub is_there { defined PrivateServer::program('clamd') }
sub eicar    { $EICAR }

# clamav-testfiles' file of that name, or undef.
sub testfile { my $file = "$FILES/$_[0]"; return -r $file ? slurp($file) : undef }

# Writes signatures below a directory: of EICAR, of clam.exe, and of what else is given by name.
sub signatures {
    my ($dir, %more) = @_;
    make_path($dir);
    my %file = ('Eicar-Test' => $EICAR, %more);
    my $clam = testfile('clam.exe');
    $file{'Clam-Test'} = $clam if defined $clam;
    spew("$dir/.new", join '', map { md5_hex($file{$_}) . ':' . length($file{$_}) . ":$_\n" } sort keys %file);
    rename "$dir/.new", "$dir/test.hdb" or croak "$dir: $!";
    return $dir;
}

# A mail with a file attached in base64.
sub mail_with {
    my ($octets, %a) = @_;
    my $name = $a{name} // 'file.bin';
    return ($a{first} // "From: a\@b.test\r\n") . "Subject: a file\r\nMIME-Version: 1.0\r\n"
        . "Content-Type: multipart/mixed; boundary=\"b\"\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n"
        . "here it is\r\n--b\r\nContent-Type: application/octet-stream; name=\"$name\"\r\n"
        . "Content-Disposition: attachment; filename=\"$name\"\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        . encode_base64($octets, "\r\n") . "--b--\r\n";
}

# A gzip file in a gzip file .. so many times.
sub nested {
    my ($depth) = @_;
    my $octets = 'the innermost';
    for (1 .. $depth) { gzip(\(my $inner = $octets) => \$octets) or croak 'gzip'; }
    return $octets;
}

sub new {
    my ($class, %a) = @_;
    return $class->SUPER::new(options => '', timeout => 30, %a)->start;
}

sub path { "$_[0]{dir}/clamd.sock" }

sub start {
    my ($self) = @_;
    my $dir = $self->{dir};
    my $conf = $self->write_file('clamd.conf', <<"CONF" . $self->{options});
Foreground yes
DatabaseDirectory $self->{database}
TemporaryDirectory $dir
LocalSocket $dir/clamd.sock
LocalSocketMode 666
FixStaleSocket yes
TCPSocket $self->{port}
TCPAddr 127.0.0.1
LogFile $dir/log
CONF
    $self->spawn(PrivateServer::program('clamd'), '-c', $conf);
    return $self->wait_until(sub { $self->ask('PING') eq "PONG\0" });
}

# Its answer to a command, '' if it does not listen.
sub ask {
    my ($self, $command) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}) or return '';
    print {$s} "z$command\0";
    $s->flush;
    local $/;
    return <$s> // '';
}

# As "kill", but a dead one has not even said goodbye.
sub kill_it {
    my ($self) = @_;
    kill KILL => $self->pid;
    $self->wait_end(10);
}

1;
