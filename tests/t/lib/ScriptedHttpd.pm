# An OwnHttpd whose SMTP hosts run in their phases the Lua that a test gives them from one command to
# the next. Files of its own: %POLICY% is their directory.
#
#   my $h = ScriptedHttpd->new(hosts => { mail => "SmtpdRelay discard:\n" })->start;
#   $h->script(rcpt => 'tell(s:getline()) s:setreply("550 5.1.1 no")');    # r and s are there
#   is_deeply [$h->said], [[rcpt => 'RCPT TO:<x@y.test>']];   # since the last script()
#   my $c = $h->client('mail');                               # has said EHLO
#
# A host gets SmtpdEngine on and, unless it has a LuaMapHandler, one for all its phases.
package ScriptedHttpd;

use strict;
use warnings;
use parent 'OwnHttpd';
use Carp qw(croak);
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use JSON::PP qw(decode_json);
use SmallFile;

my $lua = abs_path(dirname(__FILE__) . '/../lua');

sub new {
    my ($class, %a) = @_;
    my %hosts = map { $_ => _host($a{hosts}{$_}) } keys %{ $a{hosts} };
    my $self = $class->SUPER::new(%a, hosts => \%hosts,
        modules => ['proxy', 'lua', 'setenvif', @{ $a{modules} // [] }]);
    mkdir $self->policy;
    chmod 0777, $self->policy;
    $self->write('phases.lua', slurp("$lua/phases.lua") =~ s/\@LUA\@/$lua/r);
    return $self;
}

sub policy { "$_[0]{dir}/policy" }

sub _fill {
    my ($self, $text) = @_;
    my $policy = $self->policy;
    return $self->SUPER::_fill($text =~ s/%POLICY%/$policy/gr);
}

sub _host {
    my ($text) = @_;
    $text = "SmtpdEngine on\nSmtpdReceived off\n$text" if $text =~ /^\s*Smtpd/m;
    $text .= qq{\nLuaMapHandler "^/smtp/(\\w+)\$" %POLICY%/phases.lua \$1\n} if $text !~ /LuaMapHandler/;
    return $text;
}

sub write {
    my ($self, $name, $text) = @_;
    my $file = $self->policy . "/$name";
    spew("$file.new", $text);
    rename "$file.new", $file or croak "$file: $!";
    return $file;
}

# The phases' code from now on; a phase that is not named has none.
sub script {
    my ($self, %code) = @_;
    unlink grep { !m{/phases\.lua$} } glob $self->policy . '/{init,connect,helo,auth,mail,rcpt,data,error}.lua';
    unlink $self->policy . '/said';
    $self->{marked} = length $self->log('error.log');
    $self->write("$_.lua", "local r, s = ...\n$code{$_}") for keys %code;
}

sub said {
    my ($self) = @_;
    return map { decode_json($_) } split /^/, $self->read_file('policy/said');
}

# Lines of the error log since the last script() that match.
sub logged {
    my ($self, $pattern) = @_;
    return grep { $_ =~ $pattern } split /\n/, substr $self->log('error.log'), $self->{marked} // 0;
}

1;
