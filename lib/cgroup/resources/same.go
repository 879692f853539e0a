package resources

import (
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// The kernel gives back some values in other words than it took them.

// sameBytes compares amounts of memory, which are kept in whole pages; all
// that v1 cannot hold, and -1, is its largest number.
func sameBytes(have, text string) bool {
	page := int64(os.Getpagesize())
	h, err1 := bytesOf(have)
	t, err2 := bytesOf(text)
	return err1 == nil && err2 == nil && h/page == t/page
}

func bytesOf(s string) (int64, error) {
	if s == "max" || s == "-1" {
		return math.MaxInt64, nil
	}
	return strconv.ParseInt(s, 10, 64)
}

// sameCPUs compares lists of processors or nodes: 0,1,2 is 0-2.
func sameCPUs(have, text string) bool {
	h, ok1 := Numbers(have)
	t, ok2 := Numbers(text)
	return ok1 && ok2 && slices.Equal(h, t)
}

// maxNumber bounds the processors that a list may name.
const maxNumber = 1 << 16

// Numbers reads a list of processors or memory nodes such as 0-2,4; it is not ok
// if it is none.
func Numbers(list string) ([]int, bool) {
	var all []int
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || from < 0 || from > to || to > maxNumber {
			return nil, false
		}
		for n := from; n <= to; n++ {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), true
}

// sameLine looks, in a file of one line a device, for the line that begins
// with the same word and has all the settings of text: of "8:0 rbps=1 wbps=max"
// text may be "8:0 rbps=1". A setting of 0, or max, may also be left out.
func sameLine(have, text string) bool {
	want := strings.Fields(text)
	if found := line(have, want[0]); found != "" {
		has := strings.Fields(found)[1:]
		return !slices.ContainsFunc(want[1:], func(w string) bool { return !slices.Contains(has, w) })
	}
	return len(want) == 2 && (want[1] == "0" || strings.HasSuffix(want[1], "=max"))
}

// sameDefault compares a weight: "default 100" is 100.
func sameDefault(have, text string) bool {
	first, _, _ := strings.Cut(have, "\n")
	return strings.TrimPrefix(first, "default ") == strings.TrimPrefix(text, "default ")
}

// line is the line of a file that begins with a word, or "".
func line(have, word string) string {
	for l := range strings.Lines(have) {
		if fields := strings.Fields(l); len(fields) > 0 && fields[0] == word {
			return strings.Join(fields, " ")
		}
	}
	return ""
}

// lineOr brings back the line that a file has for the first word of text, or,
// if it has none, that word with what means none.
func lineOr(none string) func(have, text string) string {
	return func(have, text string) string {
		word, _, _ := strings.Cut(text, " ")
		if l := line(have, word); l != "" {
			return l
		}
		return word + " " + none
	}
}

func firstLine(have, _ string) string {
	first, _, _ := strings.Cut(have, "\n")
	return first
}
