# shellcheck shell=bash disable=SC2034
# What conformance and engines share: the command line, and the comparison.
# They source this first.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

core='' only='' vm=''
while (($#)); do
	case $1 in
	--core) core=1 ;;
	--vm) vm=1 ;;
	--run)
		(($# > 1)) || die "--run needs a value"
		only=$2
		shift
		;;
	-*)
		sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
		exit 2
		;;
	*) break ;;
	esac
	shift
done
exec </dev/null
need_root
need_go
export SHOCKER_REFERENCE=${1:-runc} SHOCKER_CANDIDATE=${2:-shocker-oci}
export SHOCKER_TEST_CACHE=${SHOCKER_TEST_CACHE:-${XDG_CACHE_HOME:-/var/cache}/shocker-test}

# compare runs tests of tools/peers, with these arguments, and prints their
# table; what is worse is told before it.
compare() { # program|engine ARG...
	local tmp kind=$1 status=0 run=()
	shift
	# In scripts/vm TMPDIR is below /run, which a test's host hides.
	tmp=$(TMPDIR=${SCRATCH:-${TMPDIR:-/tmp}} mktemp -d)
	trap 'rm -rf "$tmp"' EXIT
	chmod 755 "$tmp"
	mkdir "$tmp/out"
	export TMPDIR=$tmp SHOCKER_TABLE=$tmp/out/table
	[[ $core ]] || export SHOCKER_SUITE=all
	if [[ ! ${SHOCKER_BIN-} && $SHOCKER_CANDIDATE == shocker-oci ]]; then
		export SHOCKER_BIN=$tmp/bin
		"$root/scripts/build" "$SHOCKER_BIN"
	fi
	: >"$SHOCKER_TABLE"
	cd "$root/tools/peers"
	go test -c -vet=off -o "$tmp/peers" .
	if [[ $vm ]]; then
		# shellcheck disable=SC2016 # for the shell in there
		run=("$root/scripts/vm" --cgroup "$(other_cgroups)" --mem 4G --disk 16G --share "$tmp/out:$tmp/out"
			--env SHOCKER_BIN --env SHOCKER_TEST_CACHE --env SHOCKER_SUITE --env SHOCKER_TABLE
			--env SHOCKER_REFERENCE --env SHOCKER_CANDIDATE -- sh -c 'exec env TMPDIR="$SCRATCH" "$@"' sh)
	fi
	"${run[@]}" "$tmp/peers" -test.timeout 3h "$@" || status=$?
	table "$kind" "$SHOCKER_TABLE"
	exit $status
}
