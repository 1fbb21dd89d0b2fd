# Private instances of the other servers: bare.c, nginx's mail proxy, Haraka, Exim and OpenSMTPD, each with the
# configuration of its package as far as the work allows; where a default would forbid the work (a limit
# on connections or on mails a connection) it is raised, and nothing else is tuned. Postfix stands in
# PeerPostfix.pm. Each function takes the context (dir, sink, idle) and gives { port, trees, stop }.
package Peers;

use strict;
use warnings;
use Fetch;
use File::Path qw(make_path);
use FreePort;
use ProcessTree;
use SmallFile;

sub _served {
    my ($port, %how) = @_;
    my $p = ProcessTree->start(%how, port => $port, greets => 1);
    return { port => $port, trees => [$p], said => sub { $p->said }, stop => sub { $p->stop } };
}

# No server: what no proxy with these round trips can be below.
sub bare {
    my ($c) = @_;
    my $port = FreePort::pick();
    return _served($port, command => [Fetch::program('bare.c'), $port, $c->{sink}->port], log => "$c->{dir}/bare.log");
}

# http's part answers the question of the mail part: where to.
sub nginx {
    my ($c, $preload) = @_;
    my $root = Fetch::debian(qw(nginx nginx-common libnginx-mod-mail));
    my ($dir, $port, $auth) = ($c->{dir}, FreePort::pick(), FreePort::pick());
    my %env = (LD_LIBRARY_PATH => Fetch::libraries($root));
    $env{LD_PRELOAD} = Fetch::shim($preload) if $preload;
    my $connections = 768 > $c->{idle} ? 768 : 2 * $c->{idle} + 1000;
    my $user = $> == 0 ? 'user www-data;' : '';
    spew("$dir/nginx.conf", <<"CONF");
load_module $root/usr/lib/nginx/modules/ngx_mail_module.so;
$user
worker_processes auto;
daemon off;
pid $dir/nginx.pid;
error_log $dir/error.log;
events { worker_connections $connections; }
http {
    access_log off;
    client_body_temp_path $dir/body; proxy_temp_path $dir/proxy; fastcgi_temp_path $dir/fastcgi;
    scgi_temp_path $dir/scgi; uwsgi_temp_path $dir/uwsgi;
    server {
        listen 127.0.0.1:$auth;
        location / {
            add_header Auth-Status OK;
            add_header Auth-Server 127.0.0.1;
            add_header Auth-Port @{[$c->{sink}->port]};
            return 200;
        }
    }
}
mail {
    server_name nginx.test;
    auth_http 127.0.0.1:$auth/;
    server {
        listen 127.0.0.1:$port;
        protocol smtp;
        smtp_auth none;
        xclient off;
        timeout 600s;
    }
}
CONF
    return _served($port, command => ["$root/usr/sbin/nginx", '-p', "$dir/", '-c', "$dir/nginx.conf",
        '-e', "$dir/error.log"], log => "$dir/error.log", env => \%env);
}

sub nginx_nodelay { return nginx($_[0], 'nodelay.c') }

sub haraka {
    my ($c) = @_;
    my $package = Fetch::npm('Haraka');
    my ($dir, $port) = ($c->{dir}, FreePort::pick());
    make_path("$dir/config", "$dir/plugins", "$dir/queue");
    symlink "$package/node_modules", "$dir/node_modules";
    spew("$dir/package.json", qq({"name":"bench","private":true}\n));
    spew("$dir/config/smtp.ini", "listen=127.0.0.1:$port\n");
    spew("$dir/config/plugins", "accept\nqueue/smtp_forward\n");
    spew("$dir/config/smtp_forward.ini", "host=127.0.0.1\nport=@{[$c->{sink}->port]}\n");
    my $connection = slurp("$package/node_modules/Haraka/config/connection.ini");
    $connection =~ s/^;?\s*bytes\s*=.*$/bytes=60000000/m or die "Haraka's limit on a mail's size was not found\n";
    spew("$dir/config/connection.ini", $connection);
    spew("$dir/config/me", "haraka.test\n");
    spew("$dir/config/loglevel", "WARN\n");
    spew("$dir/plugins/accept.js", "exports.hook_rcpt = function (next) { next(OK) }\n");
    return _served($port, command => ['node', "$package/node_modules/Haraka/bin/haraka", '-c', $dir],
        log => "$dir/haraka.log", directory => $dir);
}

sub exim {
    my ($c) = @_;
    my $root = Fetch::debian(qw(exim4-daemon-light exim4-base));
    my ($dir, $port) = ($c->{dir}, FreePort::pick());
    my @inside = Fetch::namespace("$dir/ns", 'Debian-exim');
    make_path("$dir/spool", "$dir/log");
    chmod 0777, "$dir/spool", "$dir/log";
    spew("$dir/exim.conf", <<"CONF");
primary_hostname = exim.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = $port
spool_directory = $dir/spool
log_file_path = $dir/log/%slog
pid_file_path = $dir/spool/exim.pid
acl_smtp_rcpt = rcpt
host_lookup =
tls_advertise_hosts =
keep_environment =
message_size_limit = 60M
smtp_accept_max = 0
smtp_accept_queue = 0
smtp_accept_queue_per_connection = 0
smtp_accept_max_per_connection = 0
smtp_receive_timeout = 10m
begin acl
rcpt:
  accept control = cutthrough_delivery
begin routers
sink:
  driver = manualroute
  route_list = * 127.0.0.1
  self = send
  transport = sink
begin transports
sink:
  driver = smtp
  port = @{[$c->{sink}->port]}
  allow_localhost
  hosts_avoid_tls = *
  hosts_try_chunking =
CONF
    return _served($port, command => [@inside, "$root/usr/sbin/exim4", '-bdf', '-C', "$dir/exim.conf"],
        log => "$dir/exim.log", env => { LD_LIBRARY_PATH => Fetch::libraries($root) });
}

sub opensmtpd {
    my ($c) = @_;
    my $root = Fetch::debian('opensmtpd');
    my ($dir, $port) = ($c->{dir}, FreePort::pick());
    my @inside = Fetch::namespace("$dir/ns", qw(opensmtpd opensmtpq));
    make_path("$dir/ns/lib/opensmtpd/empty", "$dir/ns/spool/smtpd");
    chmod 0711, "$dir/ns/spool/smtpd";
    chmod 0755, "$dir/ns/lib/opensmtpd", "$dir/ns/lib/opensmtpd/empty";
    spew("$dir/smtpd.conf", <<"CONF");
smtp max-message-size 60M
smtp limit max-mails 1000000
listen on 127.0.0.1 port $port
action "sink" relay host smtp://127.0.0.1:@{[$c->{sink}->port]}
match from any for any action "sink"
CONF
    return _served($port, command => [@inside, "$root/usr/sbin/smtpd", '-d', '-f', "$dir/smtpd.conf"],
        log => "$dir/smtpd.log", env => { LD_LIBRARY_PATH => Fetch::libraries($root) });
}

1;
