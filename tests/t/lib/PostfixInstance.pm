# A real Postfix of its own: configuration, queue, data and log below one directory, listening on
# a free loopback port, not chrooted, without syslog. It takes mail for every address and delivers
# it to one Maildir whose files belong to the given user; unknown@relay.test is refused with
# 550 5.1.1. Nothing leaves the machine: there is no other transport. It must be started by root.
#
#   my $p = PostfixInstance->new(dir => $empty_dir, user => 'www-data', main => { key => value });
#   $p->start; $p->port; $p->maildir; $p->log_file; $p->variables; $p->stop;
#
# With submission => 1 it is a submission server too, on the ports of PostfixSubmission; with network
# => ADDRESS it listens there too, as PostfixNetwork says.
#
# or as a program:  perl PostfixInstance.pm start DIR USER   prints POSTFIX_PORT=.. and so on, and
#                   perl PostfixInstance.pm stop DIR         is all of this where it can be
package PostfixInstance;

use strict;
use warnings;
use File::Basename qw(dirname);
use File::Path qw(make_path);
use IO::Select;
use IO::Socket::INET;
use POSIX ();
use Time::HiRes qw(sleep time);
use lib dirname(__FILE__);
use parent 'PrivateServer';
use PostfixNetwork;
use PostfixSubmission;

sub new {
    my ($class, %a) = @_;
    return $class->SUPER::new(user => 'www-data', main => {}, log => 'log/maillog', %a);
}

sub maildir  { "$_[0]{dir}/mail/all" }
sub log_file { "$_[0]{dir}/$_[0]{log}" }

# What a suite needs to know, by the names that it has in the environment.
sub variables {
    my ($self) = @_;
    return (
        POSTFIX_PORT => $self->port, POSTFIX_MAILDIR => $self->maildir, POSTFIX_LOG => $self->log_file,
        map { $_->variables } @{ $self->{parts} },
    );
}

# queue directory => owner, group, mode
my %queue = (
    (map { $_ => ['postfix', 'root', 0700] } qw(active bounce corrupt defer deferred flush hold
        incoming private saved trace)),
    maildrop => ['postfix', 'postdrop', 01730],
    public   => ['postfix', 'postdrop', 0710],
    pid      => ['root', 'root', 0755],
);

my %main = (
    compatibility_level    => '3.6',
    command_directory      => '/usr/sbin',
    mail_owner             => 'postfix',
    setgid_group           => 'postdrop',
    myhostname             => 'relay.test',
    mydestination          => '',
    mynetworks             => '127.0.0.0/8',
    inet_interfaces        => '127.0.0.1',
    inet_protocols         => 'ipv4',
    alias_maps             => '',
    alias_database         => '',
    local_recipient_maps   => '',
    biff                   => 'no',
    append_dot_mydomain    => 'no',
    smtputf8_enable        => 'no',
    message_size_limit     => 104857600,
    mailbox_size_limit     => 0,
    virtual_mailbox_limit  => 0,
    virtual_mailbox_domains => 'static:all',
    virtual_mailbox_maps   => 'static:all/',
    virtual_minimum_uid    => 1,
    virtual_transport      => 'virtual',
    smtpd_relay_restrictions => 'permit_mynetworks, reject',
    smtpd_recipient_restrictions => 'check_recipient_access inline:{'
        . ' { unknown@relay.test = 550 5.1.1 no such user here } }, permit',
    smtpd_client_connection_count_limit => 0,
    default_process_limit  => 60,
    # A mail's bytes as they came: no header is added or rewritten but Received and the envelope's.
    local_header_rewrite_clients => '',
    always_add_missing_headers   => 'no',
    disable_mime_input_processing => 'yes',
);

sub _daemon_directory {
    my $dir = `postconf -d -h daemon_directory`;
    chomp $dir;
    die "Postfix is not installed (postconf said nothing)\n" if $? || $dir eq '';
    return $dir;
}

sub _configure {
    my ($self) = @_;
    my $dir = $self->{dir};
    my (undef, undef, $uid, $gid) = getpwnam $self->{user} or die "no user $self->{user}\n";
    my $postfix = getpwnam 'postfix';
    $self->{daemons} = _daemon_directory();

    make_path("$dir/etc", "$dir/data", "$dir/mail", "$dir/log", "$dir/queue");
    chmod 0755, $dir, "$dir/etc", "$dir/queue", "$dir/mail", "$dir/log";
    for my $name (keys %queue) {
        my ($owner, $group, $mode) = @{ $queue{$name} };
        make_path("$dir/queue/$name");
        chown scalar getpwnam $owner, scalar getgrnam $group, "$dir/queue/$name";
        chmod $mode, "$dir/queue/$name";
    }
    chown $postfix, -1, "$dir/data";
    chown $uid, $gid, "$dir/mail";

    # postlogd would make it readable for root alone, but the suites read it.
    chmod 0644, $self->write_file($self->{log}, '');

    $self->{parts} = [$self->{submission}
        ? PostfixSubmission->new(dir => $dir, taken => [$self->{port}]) : (),
        $self->{network}
        ? PostfixNetwork->new(dir => $dir, address => $self->{network}) : ()];
    my %m = (%main, queue_directory => "$dir/queue", data_directory => "$dir/data",
        daemon_directory => $self->{daemons}, virtual_mailbox_base => "$dir/mail",
        virtual_uid_maps => "static:$uid", virtual_gid_maps => "static:$gid",
        maillog_file => $self->log_file, maillog_file_prefixes => "$dir/log",
        (map { $_->main } @{ $self->{parts} }), %{ $self->{main} });
    $self->write_file('etc/main.cf', join '', map {"$_ = $m{$_}\n"} sort keys %m);
    $self->write_file('etc/master.cf', join "\n",
        "127.0.0.1:$self->{port} inet n - n - - smtpd",
        (map { $_->services } @{ $self->{parts} }),
        (map {"$_ unix n - n - 0 $_"} qw(cleanup)),
        'qmgr unix n - n 300 1 qmgr',
        'rewrite unix - - n - - trivial-rewrite',
        (map {"$_ unix - - n - 0 bounce"} qw(bounce defer trace)),
        (map {"$_ unix - - n - - $_"} qw(error discard)),
        'retry unix - - n - - error',
        'proxymap unix - - n - - proxymap',
        'flush unix n - n 1000? 0 flush',
        'virtual unix - n n - - virtual',
        'anvil unix - - n - 1 anvil',
        'scache unix - - n - 1 scache',
        'tlsmgr unix - - n 1000? 1 tlsmgr',
        'postlog unix-dgram n - n - 1 postlogd', '');
}

# Its own process group: master ends its daemons by a signal to the group.
sub prepare { POSIX::setsid() }

sub start {
    my ($self) = @_;
    die "Postfix must be started by root\n" if $> != 0;
    $self->_configure;
    $self->spawn("$self->{daemons}/master", '-c', "$self->{dir}/etc", '-d');
    $self->write_file('pid', $self->pid);
    return $self->wait_until(sub { $self->_greets });
}

sub _greets {
    my ($self) = @_;
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}, Timeout => 2) or return 0;
    my $greeting = IO::Select->new($s)->can_read($self->{timeout}) && <$s> // '';
    print {$s} "QUIT\r\n";
    return $greeting =~ /^220 /;
}

# Ends master and waits until it is gone; master ends its daemons.
sub stop {
    my ($self) = @_;
    my $pid = $self->pid || $self->read_file('pid') or return;
    unlink "$self->{dir}/pid";
    kill TERM => $pid or return;
    my $deadline = time + $self->{timeout};
    while (time < $deadline) {
        waitpid $pid, POSIX::WNOHANG();
        if (!kill 0 => $pid) { shift @{ $self->{pids} }; return; }
        sleep 0.05;
    }
    kill KILL => -$pid;
    waitpid $pid, 0;
}

# It outlives the program that started it.
sub DESTROY { }

sub main {
    my ($verb, $dir, $user) = @_;
    if (($verb // '') eq 'start' && $user) {
        my $missing = PostfixSubmission->missing;
        print STDERR "Postfix is no submission server, and the suites that need one are skipped:"
            . " $missing.\n" if $missing;
        my $p = PostfixInstance->new(dir => $dir, user => $user, submission => !$missing,
            network => $ENV{TEST_NETWORK})->start;
        my %v = $p->variables;
        print join(' ', map {"$_=$v{$_}"} sort keys %v), "\n";
    }
    elsif (($verb // '') eq 'stop' && $dir) {
        PostfixInstance->new(dir => $dir)->stop;
    }
    else {
        die "usage: PostfixInstance.pm start DIR USER | stop DIR\n";
    }
}

main(@ARGV) unless caller;

1;
