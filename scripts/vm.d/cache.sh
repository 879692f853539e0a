# shellcheck shell=bash
# shellcheck disable=SC2154 # scripts/vm sets what is not set here
# The cache of scripts/vm: an unpacked kernel with its modules, an initramfs
# and an empty btrfs. Sourced with kernel, disk, update and cache set; sets
# kdir, initrd and base.

fetch() { # PACKAGE DIR: download and unpack, without installing
	local tmp
	tmp=$(mktemp -d)
	(cd "$tmp" && apt-get -q download "$1" >/dev/null 2>"$tmp/err") || {
		cat "$tmp/err" >&2
		rm -rf "$tmp"
		die "cannot fetch $1"
	}
	mkdir -p "$2"
	dpkg -x "$tmp"/*.deb "$2"
	rm -rf "$tmp"
}

num() { od -An -t"u$3" -j"$2" -N"$3" "$1" | tr -d ' '; }

# vmlinux unpacks the kernel itself, which saves seconds of an emulated boot
# (PVH). Offsets: Linux x86 boot protocol, setup_sects, payload_offset and
# payload_length.
vmlinux() { # BZIMAGE OUT
	local off len z
	off=$((($(num "$1" $((0x1f1)) 1) + 1) * 512 + $(num "$1" $((0x248)) 4)))
	len=$(num "$1" $((0x24c)) 4)
	for z in 'xz --single-stream -dc' 'gzip -dc' 'zstd -dc'; do
		{ tail -c +$((off + 1)) "$1" | head -c "$len" | $z >"$2"; } 2>/dev/null || true
		[[ $(head -c4 "$2" | tr -d '\0') == $'\x7fELF' ]] && return
	done
	cp "$1" "$2" # another compression: boot the bzImage
}

unpack_modules() { # DIR VERSION: those that the initramfs needs, and their list
	local f m name
	mkdir "$1/mod"
	for m in virtio_pci virtio_console virtio_blk 9pnet_virtio 9p overlay; do
		modprobe -d "$1" -S "$2" --show-depends "$m" 2>/dev/null || echo "missing $m"
	done | awk '$1 != "builtin" && !seen[$2]++ { print $2 }' >"$1/list"
	while read -r f; do
		[[ $f == /* ]] || die "the kernel has no module $f"
		name=${f##*/}
		name=${name%%.*}.ko
		case $f in
		*.xz) xz -dc "$f" >"$1/mod/$name" ;;
		*.zst) zstd -qdc "$f" >"$1/mod/$name" ;;
		*) cp "$f" "$1/mod/$name" ;;
		esac
		echo "$name"
	done <"$1/list" >"$1/mod/list"
	[[ -s $1/mod/list ]] || die "the kernel has no modules"
}

fetch_kernel() {
	local pkg=$kernel tmp ver
	say "fetching kernel ($kernel) and busybox"
	quietly apt-get update
	[[ $kernel != debian ]] || pkg=$(apt-cache depends linux-image-amd64 | awk '/Depends:/ { print $2; exit }')
	[[ $pkg ]] || die "no package linux-image-amd64"
	tmp=$(mktemp -d "$cache/new.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	fetch "$pkg" "$tmp/k"
	fetch busybox-static "$tmp/b"
	mv "$(find "$tmp/b" -type f -path '*/bin/busybox')" "$tmp/busybox"
	mkdir "$tmp/lib"
	mv "$(find "$tmp/k" -type d -path '*lib/modules' | head -n1)" "$tmp/lib/modules"
	ver=$(ls "$tmp/lib/modules")
	depmod -b "$tmp" "$ver"
	vmlinux "$tmp/k/boot/vmlinuz-$ver" "$tmp/vmlinux"
	unpack_modules "$tmp" "$ver"
	rm -rf "$tmp/k" "$tmp/b" "$tmp/list"
	echo "$ver" >"$tmp/ok"
	rm -rf "$kdir"
	mv "$tmp" "$kdir"
	trap - EXIT
}

make_initrd() {
	local tmp
	tmp=$(mktemp -d)
	mkdir -p "$tmp"/{bin,proc,sys,dev}
	cp "$root/scripts/vm.d/initramfs" "$tmp/init"
	chmod 755 "$tmp/init"
	cp "$kdir/busybox" "$tmp/bin/"
	cp -r "$kdir/mod" "$tmp/"
	(cd "$tmp" && find . | "$kdir/busybox" cpio -o -H newc 2>/dev/null) >"$initrd.new"
	mv "$initrd.new" "$initrd"
	rm -rf "$tmp"
}

prepare_cache() {
	mkdir -p "$cache"
	exec 9>"$cache/lock"
	flock 9
	apt_install qemu-system-x86 kmod btrfs-progs xz-utils zstd
	kdir=$cache/$kernel
	[[ ! $update && -e $kdir/ok ]] || fetch_kernel
	initrd=$kdir/initrd-$(cksum <"$root/scripts/vm.d/initramfs" | tr ' ' -)
	[[ -e $initrd ]] || make_initrd
	base=$cache/btrfs-$disk.img
	if [[ $disk != 0 && ! -e $base ]]; then
		truncate -s "$disk" "$base.new"
		quietly mkfs.btrfs -f "$base.new"
		mv "$base.new" "$base"
	fi
	exec 9>&-
}
