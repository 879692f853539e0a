package container

import (
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	const ro, nosuid, noexec = unix.MOUNT_ATTR_RDONLY, unix.MOUNT_ATTR_NOSUID, unix.MOUNT_ATTR_NOEXEC
	const atime = unix.MOUNT_ATTR__ATIME
	for _, test := range []struct {
		in   []string
		want mountOptions
	}{
		{nil, mountOptions{}},
		{[]string{"nosuid", "noexec", "mode=755"}, mountOptions{set: nosuid | noexec, data: []string{"mode=755"}}},
		{[]string{"ro", "rw"}, mountOptions{clear: ro}},
		{[]string{"rw", "ro"}, mountOptions{set: ro}},
		{[]string{"rbind", "rro"}, mountOptions{bind: true, recursive: true, recSet: ro}},
		{[]string{"rw", "bind", "rslave"}, mountOptions{bind: true, clear: ro, propagation: unix.MS_SLAVE, propagationRec: true}},
		{[]string{"relatime", "noatime"}, mountOptions{set: unix.MOUNT_ATTR_NOATIME, clear: atime}},
		{[]string{"noatime", "strictatime"}, mountOptions{set: unix.MOUNT_ATTR_STRICTATIME, clear: atime}},
		{[]string{"ridmap", "tmpcopyup", "remount"}, mountOptions{idmap: true, idmapRec: true, copyUp: true, remount: true}},
		{[]string{"defaults", "sync"}, mountOptions{data: []string{"sync"}}},
		{[]string{"rw", "", "mode=755"}, mountOptions{clear: ro, data: []string{"mode=755"}}},
	} {
		got := parseOptions(test.in)
		if !reflect.DeepEqual(*got, test.want) {
			t.Errorf("parseOptions(%q) = %+v; want %+v", test.in, *got, test.want)
		}
	}
}
