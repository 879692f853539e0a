package container

import (
	"fmt"
	"strconv"
	"strings"
)

// maxListed is above what kernels are built for: 8192 CPUs, 1024 memory nodes.
const maxListed = 8192

// parseList reads a list of CPUs or memory nodes as the kernel writes it,
// "0-3,7" (cpuset(7), "List format"), into a bit mask of 64-bit words.
func parseList(list string) ([]uint64, error) {
	var mask []uint64
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.ParseUint(from, 10, 32)
		last := first
		if err == nil && isRange {
			last, err = strconv.ParseUint(to, 10, 32)
		}
		if err != nil || last < first || last >= maxListed {
			return nil, fmt.Errorf("%w: %q in %q: want a number below %d or a range of them", ErrInvalid, part, list, maxListed)
		}
		for n := first; n <= last; n++ {
			for uint64(len(mask)) <= n/64 {
				mask = append(mask, 0)
			}
			mask[n/64] |= 1 << (n % 64)
		}
	}
	return mask, nil
}
