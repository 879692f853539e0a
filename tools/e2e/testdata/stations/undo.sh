# shellcheck shell=sh
# What the stages in this directory have in common.

# get FILTER: a value of the record, by jq.
get() { printf '%s' "$record" | jq -r "$1"; }

# change FILTER [OPTION...]: the record, changed by jq, to the next stage.
change() { printf '%s' "$record" | jq -c "$@"; }

# undo_first CLASS: writes into the container's undo log that `STAGE down`
# takes back what this stage does: exit, when the program has ended, or rm.
# Every stage has to do so before it takes effect. Who composes a session has
# done it for us; in a pasted pipeline nobody has.
undo_first() {
	name=${0##*/}
	log=${SHOCKER_RUN:-/run/shocker}/$id/undo
	last=000000
	for entry in "$log"/*; do
		case $entry in
		*-"$name"-down) return ;;
		*/[0-9]*) last=${entry##*/} ;;
		esac
	done
	entry=$(printf '%06d' $((1${last%%-*} - 999999)))-$name-down
	change --arg program "$0" --arg stage "$name" --arg class "$1" \
		'{stage: $stage, class: $class, op: "down", args: [$program, "down"], record: .}' >"$log/.$name"
	mv "$log/.$name" "$log/$entry"
}

record=$(cat)
id=$(get '.annotations["sh.shocker.id"]')
