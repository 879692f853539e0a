# shellcheck shell=bash
# What the scripts share: bash sources this first.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
self=$(realpath -s --relative-to="$root" "$0")
: "${HOME:=/root}" # Go's cache is there
# Where a distribution has set it to "local": fetch the Go that go.work names.
: "${GOTOOLCHAIN:=auto}"
export HOME GOTOOLCHAIN CGO_ENABLED=0 GOFLAGS='-buildvcs=false -tags=urfave_cli_no_docs'
export PATH="$PATH:/usr/sbin:/sbin"

say() { echo "$self: $*" >&2; }
die() {
	say "$*"
	exit 1
}

need_root() { ((EUID == 0)) || die "root is needed: sudo $self"; }

# need_go sets PATH so that there is a Go that can build this. sudo has a PATH
# of its own, without the place where go.dev's archive is unpacked.
need_go() {
	local want have path found=none
	want=$(awk '$1 == "go" { print $2 }' "$root/go.work")
	for path in "$PATH" "/usr/local/go/bin:$PATH"; do
		have=$(cd "$root" && PATH=$path go env GOVERSION 2>&1) || true
		if [[ $have == go* ]] && printf '%s\n' "$want" "${have#go}" | sort -CV; then
			PATH=$path
			return
		fi
		[[ $have == *"command not found"* ]] || found=$have
	done
	die "Go $want is needed, or any from 1.21 on, which fetches it; found: $found.
    Debian 13, Ubuntu 24.04 and later: sudo apt-get install golang-go
    Others, whose package is too old:
    curl -L https://go.dev/dl/go$want.linux-$(dpkg --print-architecture).tar.gz | sudo tar -C /usr/local -xz"
}

modules() { (cd "$root" && go list -m -f '{{.Dir}}'); }

quietly() { # COMMAND...: its output is shown if it fails
	local out
	out=$("$@" 2>&1 </dev/null) || {
		echo "$out" >&2
		die "failed: $*"
	}
}

apt_install() { # PACKAGE...: those that are missing
	local p missing=()
	for p; do
		dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed' || missing+=("$p")
	done
	((${#missing[@]})) || return 0
	say "installing ${missing[*]}"
	quietly apt-get update
	quietly env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
}

# install_engines installs docker, podman and containerd, without starting them.
install_engines() {
	local policy=/usr/sbin/policy-rc.d status=0 # invoke-rc.d(8)
	[[ ! -e $policy ]] || policy=$(mktemp)
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod 755 "$policy"
	(apt_install bsdutils busybox-static catatonit conmon containerd docker.io iptables netavark podman procps runc) || status=$?
	rm "$policy"
	return $status
}

# other_cgroups is the version of cgroups that this machine has not.
other_cgroups() {
	if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then echo v1; else echo v2; fi
}

# table prints that of conformance (program) or engines (engine), whose rows
# are in FILE.
table() { # program|engine FILE
	grep -q "^$1"$'\t' "$2" || return 0
	echo
	sort -u "$2" | sed -n "s/^$1\t//p" | column -t -s $'\t'
	sort -u "$2" | sed -n "s/^$1\t.*\t//p" | sort | uniq -c
}

# busybox_root makes DIR a root file system of the machine's static busybox.
busybox_root() { # DIR
	mkdir -p "$1"/{bin,sbin,usr/bin,usr/sbin,dev,etc,proc,root,run,sys,tmp}
	chmod 1777 "$1/tmp"
	cp "$(command -v busybox)" "$1/bin/busybox"
	echo root:x:0:0:root:/root:/bin/sh >"$1/etc/passwd"
	echo root:x:0: >"$1/etc/group"
	chroot "$1" /bin/busybox --install -s
}
