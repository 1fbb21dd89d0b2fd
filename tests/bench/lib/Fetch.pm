# Programs of peers that cannot be installed beside each other: Debian packages unpacked, not
# installed, and npm packages, kept below the build folder. Each function dies with the reason when a
# program is not to be had, and that becomes the reason for which a target is skipped.
#
#   my $root = Fetch::debian('exim4-daemon-light', 'exim4-base');   # "$root/usr/sbin/exim4"
#   local $ENV{LD_LIBRARY_PATH} = Fetch::libraries($root);
#   my $dir = Fetch::npm('Haraka');   my $so = Fetch::shim('nodelay.c');
#   my $file = Fetch::program('bare.c');
package Fetch;

use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(make_path remove_tree);
use POSIX qw(strftime);
use SmallFile;

my $here = abs_path(dirname(__FILE__));
# The build folder, that of the tree or what BUILD says; modules and peers are there.
our $build = $ENV{BUILD} // 'build';
$build = abs_path("$here/../../..") . "/$build" if $build !~ m{^/};
our $cache = "$build/peers";

# Runs a command in a directory; its last words are the reason when it fails.
sub _run {
    my ($dir, @command) = @_;
    my $quoted = join ' ', map { "'$_'" } @command;
    my $said = `cd '$dir' && $quoted 2>&1 </dev/null`;
    return $said if $? == 0;
    my @why = grep {/^(?:E:|npm error|.*error)/} split /\n/, $said;
    my $why = join '; ', @why ? @why[0 .. ($#why > 1 ? 1 : $#why)] : (split /\n/, $said)[-1] // '?';
    die "$command[0]: $why\n";
}

sub _have { return grep { -x "$_/$_[0]" } split /:/, $ENV{PATH} }

# Fills a directory of the cache once; an unfinished one is begun anew.
sub _once {
    my ($name, $fill) = @_;
    my $dir = "$cache/$name";
    return $dir if -d $dir;
    remove_tree("$dir.new");
    make_path("$dir.new");
    $fill->("$dir.new");
    rename "$dir.new", $dir or die "$dir: $!\n";
    return $dir;
}

sub _installed {
    my $status = `dpkg-query -W -f '\${db:Status-Status}' '$_[0]' 2>/dev/null`;
    return $status eq 'installed';
}

sub _unpack {
    my ($dir, @packages) = @_;
    eval { _run($dir, qw(apt-get -q download), @packages); 1 } or do {
        die $@ if $> != 0;
        _run($dir, qw(apt-get -q update));
        _run($dir, qw(apt-get -q download), @packages);
    };
    for my $deb (glob "$dir/*.deb") {
        _run($dir, 'dpkg', '-x', $deb, $dir);
        unlink $deb;
    }
}

sub debian {
    my @packages = @_;
    _have('dpkg') && _have('apt-get') or die "this is not Debian\n";
    return _once($packages[0], sub {
        my ($dir) = @_;
        _unpack($dir, @packages);
        my %wanted;
        for my $package (@packages) {
            $wanted{$_}++ for `apt-cache depends '$package'` =~ /^ *(?:Pre)?Depends: (lib\S+)/mg;
        }
        my @libraries = grep { !_installed($_) } sort keys %wanted;
        _unpack($dir, @libraries) if @libraries;
    });
}

sub libraries {
    my ($root) = @_;
    return join ':', grep {-d} glob "$root/lib/*-linux-gnu $root/usr/lib/*-linux-gnu $root/usr/lib";
}

# A registry that lags behind may lack the newest version of a dependency: then the state of some
# months ago is asked for.
sub npm {
    my ($package) = @_;
    _have('npm') && _have('node') or die "node or npm is missing\n";
    return _once("npm-$package", sub {
        my ($dir) = @_;
        my @install = (qw(npm install --no-audit --no-fund --ignore-scripts), $package);
        eval { _run($dir, @install); 1 } and return;
        _run($dir, @install, '--before=' . strftime('%Y-%m-%d', gmtime time - 120 * 86400));
    });
}

# One of the C files beside this one.
sub _compile {
    my ($source, $name, @options) = @_;
    make_path($cache);
    my ($to, $from) = ("$cache/$name", "$here/$source");
    return $to if -e $to && -M $to < -M $from;
    my ($cc) = grep { _have($_) } $ENV{CC} // (), qw(cc gcc clang) or die "there is no C compiler\n";
    _run($cache, $cc, qw(-O2 -Wall -Wextra -o), $to, $from, @options);
    return $to;
}

sub shim { return _compile($_[0], $_[0] =~ s/\.c$/.so/r, qw(-fPIC -shared -ldl)) }
sub program { return _compile($_[0], $_[0] =~ s/\.c$//r, '-lpthread') }

# A mount namespace of its own for servers that look for compiled-in users and directories: users
# beside the machine's, and directories of ours in the place of /var/spool, /var/lib and /run. Gives
# the words to put before the command.
sub namespace {
    my ($dir, @users) = @_;
    die "this takes root, for a mount namespace of its own\n" if $> != 0;
    _have('unshare') or die "there is no unshare\n";
    _run('/', 'unshare', '-m', 'true');
    my %text = map { $_ => slurp("/etc/$_") } qw(passwd group);
    my $id = 64000;
    for my $user (@users) {
        next if getpwnam $user;
        $id++;
        $text{passwd} .= "$user:x:$id:${id}::/nonexistent:/usr/sbin/nologin\n";
        $text{group}  .= "$user:x:$id:\n";
    }
    my %over = (spool => '/var/spool', lib => '/var/lib', run => '/run');
    make_path(map {"$dir/$_"} keys %over);
    chmod 0755, $dir, map {"$dir/$_"} keys %over;
    my $script = 'set -e; ';
    for my $file (sort keys %text) {
        spew("$dir/$file", $text{$file});
        $script .= "mount --bind '$dir/$file' /etc/$file; ";
    }
    $script .= "mount --bind '$dir/$_' $over{$_}; " for sort keys %over;
    return ('unshare', '-m', 'sh', '-c', $script . 'exec "$0" "$@"');
}

1;
