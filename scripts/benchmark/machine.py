"""What is measured, and beside what: the cluster, the proxies, and what their processes use."""

import atexit
import datetime
import glob
import json
import os
import platform
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
POOL = int(os.environ.get("BENCH_POOL", "20"))
# PgBouncer keeps prepared statements apart in transaction pooling from this version on.
PGBOUNCER_PREPARES = (1, 21)


def say(text):
    print(text, file=sys.stderr, flush=True)


def target_directory():
    out = subprocess.check_output(
        ["cargo", "metadata", "--format-version", "1", "--no-deps"], cwd=ROOT, text=True
    )
    return json.loads(out)["target_directory"]


TARGET = target_directory()
BINARY = os.environ.get("PGWEIR", f"{TARGET}/dist/pgweir")


def example(name):
    return os.environ.get(name.upper(), f"{TARGET}/release/examples/{name}")


def find(name, *folders):
    for folder in folders:
        if os.access(os.path.join(folder, name), os.X_OK):
            return os.path.join(folder, name)
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if not found:
        newest = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
        found = newest[-1] if newest else None
    return found


def program(name, *folders):
    found = find(name, *folders)
    if not found:
        sys.exit(f"{name} is missing: run `scripts/prerequisites.sh server bench`")
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def first_line(*command):
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    return (out.stdout or out.stderr).strip().splitlines()[0]


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(path, 0o644)
    return path


def read_proc(path):
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


class Cluster:
    """A primary with two replicas, owned by a child that ends when its standard input does."""

    def __init__(self):
        say("starting a primary and two replicas …")
        self.process = subprocess.Popen(
            [example("devcluster"), "--replicas", "2", "--set", "shared_buffers=256MB",
             "--set", "max_connections=300", "--set", "max_wal_size=4GB"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        atexit.register(self.stop)
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the cluster did not start")
        self.facts = json.loads(line)
        self.nodes = [(node["name"], node["port"]) for node in self.facts["nodes"]]
        self.primary = self.nodes[0][1]
        self.database = self.facts["database"]
        self.password = self.facts["users"]["app"]
        self.psql = program("psql", self.facts["bin"])

    def stop(self):
        self.process.stdin.close()
        self.process.wait()

    def sql(self, port, sql):
        return subprocess.check_output(
            [self.psql, "-XAtq", "-h", self.facts["sockets"], "-p", str(port), "-U", "postgres",
             "-d", self.database, "-c", sql], text=True,
        ).strip()

    def wait_caught_up(self):
        target = self.sql(self.primary, "SELECT pg_current_wal_flush_lsn()")
        end = time.monotonic() + 120
        for name, port in self.nodes[1:]:
            while self.sql(port, f"SELECT pg_last_wal_replay_lsn() >= '{target}'") != "t":
                if time.monotonic() > end:
                    sys.exit(f"{name} did not catch up")
                time.sleep(0.1)


class Canned:
    """Nodes that answer the application from memory, each in front of a real one for the monitor's sake."""

    def __init__(self, cluster, replicas, cores=None):
        behind = [cluster.primary] + [cluster.nodes[1 + n % 2][1] for n in range(replicas)]
        self.nodes = [(f"n{n}", free_port()) for n in range(len(behind))]
        self.primary = self.nodes[0][1]
        args = [f"--node={port}=127.0.0.1:{real}" for (_, port), real in zip(self.nodes, behind)]
        self.process = subprocess.Popen([example("canned"), *args], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True, **on(cores))
        atexit.register(self.stop)
        if self.process.stdout.readline().strip() != "ready":
            sys.exit("the canned nodes did not start")

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()


class Proxy:
    """A process of ours, its port, and the processor time and memory it uses."""

    def __init__(self, name, command, port, **popen):
        self.name, self.port = name, port
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log,
                                        stdin=subprocess.DEVNULL, **popen)
        atexit.register(self.stop)
        end = time.monotonic() + 15
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None or time.monotonic() > end:
                    self.log.seek(0)
                    sys.exit(f"{name} did not start:\n{self.log.read().decode(errors='replace')}")
                time.sleep(0.05)

    def processes(self):
        """Its own, and those of its children."""
        pids = [self.process.pid]
        for pid in pids:
            try:
                pids += [int(child) for child in read_proc(f"/proc/{pid}/task/{pid}/children").split()]
            except OSError:
                pass
        return pids

    def cpu_seconds(self):
        """What its threads have computed, to the nanosecond (proc(5), `schedstat`); /proc/PID/stat counts in
        hundredths of a second. Threads that have ended are not in it: nobody's work here ends one."""
        total = 0
        for pid in self.processes():
            try:
                for thread in os.listdir(f"/proc/{pid}/task"):
                    total += int(read_proc(f"/proc/{pid}/task/{thread}/schedstat").split()[0])
            except OSError:
                continue
        return total / 1e9

    def pss(self):
        """Its share of memory, in bytes."""
        total = 0
        for pid in self.processes():
            match = re.search(r"^Pss:\s+(\d+) kB", read_proc(f"/proc/{pid}/smaps_rollup"), re.M)
            total += int(match[1]) * 1024
        return total

    def peak(self):
        """The most it ever had resident, in bytes."""
        return int(re.search(r"VmHWM:\s+(\d+) kB", read_proc(f"/proc/{self.process.pid}/status"))[1]) * 1024

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT if self.name in ("haproxy", "pgbouncer") else signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def on(cores):
    """Arguments of Popen that start a process on these cores alone."""
    return {"preexec_fn": lambda: os.sched_setaffinity(0, cores)} if cores else {}


def has_user(name):
    with open("/etc/passwd", encoding="utf-8") as passwd:
        return any(line.startswith(f"{name}:") for line in passwd)


def start_haproxy(folder, primary):
    port = free_port()
    config = write(f"{folder}/haproxy-{port}.cfg", f"""
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgres
    bind 127.0.0.1:{port}
    server primary 127.0.0.1:{primary}
""")
    return Proxy("haproxy", [program("haproxy"), "-db", "-f", config], port)


def start_pgbouncer(folder, cluster, primary, mode="transaction", pool=POOL, tls=False, cores=None):
    port = free_port()
    # With the password itself it would derive keys at each login, which is not what its users should do.
    verifier = cluster.sql(cluster.primary, "SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
    write(f"{folder}/users.txt", f'"app" "{verifier}"\n')
    lines = ["max_prepared_statements = 200"] if pgbouncer_version() >= PGBOUNCER_PREPARES else []
    if tls:
        lines += ["client_tls_sslmode = require", f"client_tls_cert_file = {folder}/cert.pem",
                  f"client_tls_key_file = {folder}/key.pem"]
    more = "\n".join(lines)
    config = write(f"{folder}/pgbouncer-{port}.ini", f"""
[databases]
* = host=127.0.0.1 port={primary}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
pool_mode = {mode}
default_pool_size = {pool}
max_client_conn = 15000
server_round_robin = 0
log_connections = 0
log_disconnections = 0
ignore_startup_parameters = extra_float_digits
{more}
""")
    command = [program("pgbouncer")]
    if os.geteuid() == 0:
        command += ["-u", "postgres" if has_user("postgres") else "nobody"]
    return Proxy("pgbouncer", command + [config], port, **on(cores))


def start_pgpool(folder, cluster):
    port, pcp = free_port(), free_port()
    write(f"{folder}/pool_passwd", f"app:TEXT{cluster.password}\n")
    write(f"{folder}/pool_hba.conf", "host all all 127.0.0.1/32 scram-sha-256\n")
    backends = "".join(
        f"backend_hostname{n} = '127.0.0.1'\nbackend_port{n} = {real}\nbackend_weight{n} = {0 if n == 0 else 1}\n"
        for n, (_, real) in enumerate(cluster.nodes)
    )
    config = write(f"{folder}/pgpool.conf", f"""
listen_addresses = '127.0.0.1'
port = {port}
pcp_port = {pcp}
unix_socket_directories = '{folder}'
pcp_socket_dir = '{folder}'
wd_ipc_socket_dir = '{folder}'
pid_file_name = '{folder}/pgpool.pid'
logdir = '{folder}'
backend_clustering_mode = 'streaming_replication'
{backends}num_init_children = 80
max_pool = 1
load_balance_mode = on
enable_pool_hba = on
pool_passwd = 'pool_passwd'
sr_check_period = 0
sr_check_user = 'app'
sr_check_password = '{cluster.password}'
sr_check_database = '{cluster.database}'
health_check_period = 0
""")
    os.chmod(folder, 0o777)
    command = [program("pgpool"), "-n", "-f", config, "-a", f"{folder}/pool_hba.conf", "-k", f"{folder}/key"]
    return Proxy("pgpool", command, port)


def start_pgweir(folder, cluster, nodes, binary=BINARY, pool=POOL, tls=False, cores=None):
    port, http = free_port(), free_port()
    users = cluster.facts["users"]
    listed = "".join(f"    - {{ name: {name}, host: 127.0.0.1, port: {at} }}\n" for name, at in nodes)
    encrypt = f"tls: {{ client: {{ mode: prefer, cert: {folder}/cert.pem, key: {folder}/key.pem }} }}\n" if tls else ""
    config = write(f"{folder}/pgweir-{port}.yaml", f"""listen: 127.0.0.1:{port}
http: 127.0.0.1:{http}
cluster:
  nodes:
{listed}  monitor: {{ user: pgweir, password: {users["pgweir"]} }}
pool: {{ mode: transaction, size: {pool}, max_waiting: 5000 }}
limits: {{ clients: 15000 }}
auth:
  method: scram-sha-256
  users: [ {{ name: app, password: {users["app"]} }} ]
{encrypt}""")
    # As its image starts it.
    env = dict(os.environ, MIMALLOC_PURGE_DELAY=os.environ.get("MIMALLOC_PURGE_DELAY", "0"))
    proxy = Proxy("pgweir", [binary, "serve", "--config", config], port, env=env, **on(cores))
    proxy.http = http
    return proxy


def statements_by_role(proxy):
    """What pgweir counted, so that the table cannot claim a split that did not happen."""
    counts = {}
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.http}/metrics", timeout=5) as answer:
        for line in answer.read().decode().splitlines():
            match = re.match(r'pgweir_statements_total\{.*role="(\w+)".*\} (\S+)', line)
            if match:
                counts[match[1]] = counts.get(match[1], 0) + float(match[2])
    return counts


def pgbouncer_version():
    match = re.search(r"(\d+)\.(\d+)", first_line(program("pgbouncer"), "--version"))
    return (int(match[1]), int(match[2])) if match else (0, 0)


class Crowd:
    """Clients of examples/crowd.rs."""

    def __init__(self, cluster, port, tls=False, at_once=16):
        command = [example("crowd"), "--port", str(port), "--user", "app", "--password", cluster.password,
                   "--database", cluster.database, "--at-once", str(at_once)]
        self.process = subprocess.Popen(command + (["--tls"] if tls else []), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        atexit.register(self.stop)

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit(f"the clients failed at: {line}")
        return json.loads(answer)

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait()


def header(cluster):
    model = "unknown"
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            model = next((l.split(":", 1)[1].strip() for l in info if l.startswith("model name")), model)
    except OSError:
        pass
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True,
                            text=True, check=False).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cores": len(os.sched_getaffinity(0)), "processor": model, "kernel": platform.release(),
        "load before": " ".join(read_proc("/proc/loadavg").split()[:3]),
        "postgresql": cluster.facts["version"], "commit": commit, "pool": POOL,
        "pgbouncer": first_line(program("pgbouncer"), "--version"),
        "pgweir": first_line(BINARY, "--version"),
    }
