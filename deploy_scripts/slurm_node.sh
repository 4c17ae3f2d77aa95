#!/usr/bin/env bash
# A Slurm of one node on this machine, for the tests that submit batch jobs: Debian's slurmctld, slurmd, munge.
#
#   bash deploy_scripts/slurm_node.sh start      # install what is missing, start, wait until a job would run
#   bash deploy_scripts/slurm_node.sh stop|status
#
# Needs root. Not for production: no accounting, no cgroups, one partition 'cpu'. Where a Slurm of somebody
# else's is installed and configured, it is left alone and the tests use that.

# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
answer_help "$@"

CONFIGURATION=/etc/slurm/slurm.conf
MARK="# made by cib-flows for its tests"
PACKAGES=(slurmctld slurmd slurm-client munge)

ours() { [ -f "$CONFIGURATION" ] && grep -qF "$MARK" "$CONFIGURATION"; }

responds() { timeout 10 scontrol ping 2>/dev/null | grep -q "is UP"; }

configuration() { # prints slurm.conf for this machine
    local name cpus memory
    name="$(hostname -s)"
    cpus="$(nproc)"
    memory="$(awk '/MemTotal/ { print int($2 / 1024 * 0.8) }' /proc/meminfo)"
    cat <<CONF
$MARK
ClusterName=cibflows
SlurmctldHost=$name(127.0.0.1)
# The tests' own user, who may then drain and down the node.
SlurmUser=$(build_user)
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/cibflows-slurm/slurmctld
SlurmdSpoolDir=/var/spool/cibflows-slurm/slurmd
SlurmctldLogFile=/var/log/cibflows-slurm/slurmctld.log
SlurmdLogFile=/var/log/cibflows-slurm/slurmd.log
SlurmctldPidFile=/run/cibflows-slurm/slurmctld.pid
SlurmdPidFile=/run/cibflows-slurm/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Memory is shared freely: tests run several jobs on a small machine.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
MailProg=/bin/true
# A job whose walltime is over gets five seconds to clean up, and jobs start soon.
KillWait=5
OverTimeLimit=0
SchedulerParameters=defer_batch,batch_sched_delay=1,sched_interval=5
NodeName=$name NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory State=UNKNOWN
PartitionName=cpu Nodes=$name Default=YES MaxTime=UNLIMITED OverSubscribe=FORCE:4 State=UP
CONF
}

start_daemon() { # start_daemon NAME USER COMMAND ARGS...: unless it runs
    local name=$1 user=$2
    shift 2
    ! pgrep -x "$name" >/dev/null || return 0
    # Away from this script's session and output: a daemon must not end, or hold a pipe, with them.
    setsid setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups "$@" \
        </dev/null >>/var/log/cibflows-slurm/start.log 2>&1
}

start() {
    if [ -f "$CONFIGURATION" ] && ! ours; then
        responds || die "the Slurm of $CONFIGURATION does not answer, and is not this script's to start."
        say "this machine has a Slurm of its own, which answers"
        return 0
    fi
    is_root || die "starting Slurm needs root: run 'sudo bash $0 start' once."
    apt_install_missing "${PACKAGES[@]}"
    if responds && [ "$(configuration)" = "$(cat "$CONFIGURATION" 2>/dev/null)" ]; then
        say "Slurm runs already"
        return 0
    fi
    stop
    mkdir -p /run/munge /run/cibflows-slurm /var/log/cibflows-slurm /etc/slurm
    mkdir -p /var/spool/cibflows-slurm/slurmctld /var/spool/cibflows-slurm/slurmd
    chown -R "$(build_user)" /run/cibflows-slurm /var/log/cibflows-slurm /var/spool/cibflows-slurm/slurmctld
    chown munge: /run/munge /var/lib/munge /var/log/munge 2>/dev/null || true
    chmod 0755 /run/munge
    [ -s /etc/munge/munge.key ] || {
        (umask 077 && head -c 1024 /dev/urandom >/etc/munge/munge.key)
        chown munge: /etc/munge/munge.key
    }
    configuration >"$CONFIGURATION.new"
    mv "$CONFIGURATION.new" "$CONFIGURATION"
    start_daemon munged munge /usr/sbin/munged --force
    start_daemon slurmctld "$(build_user)" /usr/sbin/slurmctld -c
    start_daemon slurmd root /usr/sbin/slurmd
    local tries
    local end=$((SECONDS + 60))
    for tries in $(seq 1 60); do
        [ "$SECONDS" -lt "$end" ] || break
        if timeout 2 sinfo -h -o %T 2>/dev/null | grep -qE '^(idle|mixed|allocated)'; then
            say "Slurm runs, and its node is $(sinfo -h -o %T | sed -n 1p) (try $tries)"
            return 0
        fi
        [ "$tries" != 10 ] || scontrol update "nodename=$(hostname -s)" state=resume 2>/dev/null || true
        sleep 0.5
    done
    tail -n 20 /var/log/cibflows-slurm/*.log >&2 || true
    die "Slurm's node did not become idle within 30 s; the lines above say why."
}

stop() {
    ours || { say "no Slurm of this script's runs here"; return 0; }
    local name file
    for name in slurmd slurmctld; do
        file="/run/cibflows-slurm/$name.pid"
        [ ! -s "$file" ] || kill "$(cat "$file")" 2>/dev/null || true
        for _ in $(seq 1 50); do
            [ -s "$file" ] && kill -0 "$(cat "$file")" 2>/dev/null || break
            sleep 0.1
        done
    done
    say "Slurm is stopped"
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    status) if responds; then sinfo; else say "no Slurm answers"; exit 1; fi ;;
    *) die "usage: bash $0 start|stop|status" ;;
esac
