# shellcheck shell=bash
# What the scripts share: bash sources this first.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
self=scripts/$(basename "$0")
: "${HOME:=/root}" # Go's cache is there
export HOME CGO_ENABLED=0 GOFLAGS='-buildvcs=false -tags=urfave_cli_no_docs'
export PATH="$PATH:/usr/sbin:/sbin"

say() { echo "$self: $*" >&2; }
die() {
	say "$*"
	exit 1
}

need_root() { ((EUID == 0)) || die "root is needed: sudo $self"; }

# need_go looks where go.dev's archive is unpacked, too: sudo resets PATH.
need_go() {
	local want have=none
	want=$(awk '$1 == "go" { print $2 }' "$root/go.work")
	command -v go >/dev/null || PATH=$PATH:/usr/local/go/bin
	# From 1.21 on an older Go fetches the one that go.work asks for.
	if command -v go >/dev/null; then have=$(cd "$root" && go env GOVERSION 2>&1) || true; fi
	printf '%s\n' "$want" "${have#go}" | sort -CV && [[ $have == go* ]] && return
	die "Go $want or newer is needed (found: $have). The packages of Debian and Ubuntu may be too old for
	it; unpack the archive from https://go.dev/dl/ as /usr/local/go:
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

# busybox_root makes DIR a root file system of the machine's static busybox.
busybox_root() { # DIR
	mkdir -p "$1"/{bin,sbin,usr/bin,usr/sbin,dev,etc,proc,root,run,sys,tmp}
	chmod 1777 "$1/tmp"
	cp "$(command -v busybox)" "$1/bin/busybox"
	echo root:x:0:0:root:/root:/bin/sh >"$1/etc/passwd"
	echo root:x:0: >"$1/etc/group"
	chroot "$1" /bin/busybox --install -s
}
