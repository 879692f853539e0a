package cg

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"

	"github.com/urfave/cli/v2"

	"shocker.sh/lib/applet"
	"shocker.sh/lib/cgroup/resources"
	"shocker.sh/lib/record"
)

// The defaults of a container's limits.
const (
	defaultShares = 512
	defaultMemory = 512 // MB of 1,000,000 bytes
	defaultPids   = 4096
)

const (
	envShares = "SHOCKER_CPU_SHARE"
	envMemory = "SHOCKER_MEM_LIMIT"
)

// flags of `up`. None has a Value: what is not given must not look given.
var flags = []cli.Flag{
	&cli.StringFlag{
		Name:        "cpu-shares",
		Usage:       "weight of the container's processor time, `N` from 2 to 262144; or by " + envShares,
		DefaultText: "512",
	},
	&cli.StringFlag{
		Name:        "cpus",
		Usage:       "most processor time at any moment, in processors: `N` such as 1.5; 0 is no limit",
		DefaultText: "no limit",
	},
	&cli.StringFlag{
		Name: "memory", Aliases: []string{"m"},
		Usage: "most memory: `SIZE` is a number of megabytes of 1,000,000 bytes, or has a unit: " +
			"b is bytes, k, m and g are 1024, 1024² and 1024³ bytes; -1 is no limit; or by " + envMemory,
		DefaultText: "512",
	},
	&cli.StringFlag{
		Name:        "pids-limit",
		Usage:       "most processes and threads, `N`; 0 or -1 is no limit",
		DefaultText: "4096",
	},
}

// limit is one value in linux.resources that a flag sets.
type limit struct {
	flag    string
	key     []string // below linux.resources
	value   int64
	given   bool // by a flag; else it is a default
	besides []string
}

// limits reads the flags and the environment. Nothing is touched yet.
func limits(c *cli.Context) ([]limit, error) {
	var all []limit
	for _, f := range []struct {
		flag, env string
		fallback  int64 // 0: none
		parse     func(string) (int64, error)
		key       []string
		besides   []string
	}{
		// cpu.weight cannot be set beside cpu.idle.
		{"cpu-shares", envShares, defaultShares, parseShares, []string{"cpu", "shares"}, []string{"cpu", "idle"}},
		{"memory", envMemory, defaultMemory * 1e6, parseMemory, []string{"memory", "limit"}, nil},
		{"pids-limit", "", defaultPids, parsePids, []string{"pids", "limit"}, nil},
		{"cpus", "", 0, parseCPUs, []string{"cpu", "quota"}, nil},
	} {
		l := limit{flag: f.flag, key: f.key, value: f.fallback, besides: f.besides}
		text, from := "", ""
		if c.IsSet(f.flag) {
			text, from, l.given = c.String(f.flag), "--"+f.flag, true
		} else if f.env != "" && os.Getenv(f.env) != "" {
			text, from = os.Getenv(f.env), f.env
		}
		if from != "" {
			n, err := f.parse(text)
			if err != nil {
				return nil, applet.Usagef("%s %q: %w", from, text, err)
			}
			l.value = n
		}
		if l.given || l.value != 0 {
			all = append(all, l)
		}
		if f.flag == "cpus" && l.given {
			all = append(all, limit{flag: f.flag, key: []string{"cpu", "period"}, value: cpuPeriod, given: true})
		}
	}
	return all, nil
}

// put writes the limits into a record: those given over what it says, the
// defaults where it says nothing.
func put(r *record.Record, all []limit) error {
	for _, l := range all {
		path := append([]string{"linux", "resources"}, l.key...)
		if !l.given {
			has, err := says(r, path)
			if err != nil {
				return err
			}
			if l.besides != nil && !has {
				has, err = says(r, append([]string{"linux", "resources"}, l.besides...))
			}
			if err != nil {
				return err
			}
			if has {
				continue
			}
		}
		if err := r.Set(l.value, path...); err != nil {
			return err
		}
	}
	return nil
}

// says tells whether the record has a value at path; null is none.
func says(r *record.Record, path []string) (bool, error) {
	var n *int64
	found, err := r.Get(&n, path...)
	return found && n != nil, err
}

func parseShares(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 2 || n > 262144 {
		return 0, fmt.Errorf("%w: not a number from 2 to 262144", ErrLimit)
	}
	return n, nil
}

func parsePids(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	switch {
	case err != nil || n < -1:
		return 0, fmt.Errorf("%w: not a number of processes, nor 0 or -1 for no limit", ErrLimit)
	case n > maxPids:
		return 0, fmt.Errorf("%w: the kernel knows no more than %d", ErrLimit, maxPids)
	case n == 0:
		return -1, nil // in a record 0 is a limit
	}
	return n, nil
}

// maxPids is PID_MAX_LIMIT of a 64-bit kernel.
const maxPids = 4 << 20

// maxBytes is what a record can carry: beyond 2^53 jq would round it.
const maxBytes = 1 << 53

func parseMemory(s string) (int64, error) {
	if s == "-1" || s == "0" {
		return -1, nil
	}
	n, err := resources.ParseBytes(s, 1e6)
	switch {
	case errors.Is(err, resources.ErrTooManyBytes), n > maxBytes:
		return 0, fmt.Errorf("%w: more than 2^53 bytes", ErrLimit)
	case err != nil, n == 0:
		return 0, fmt.Errorf("%w: not an amount of memory such as 512 (MB), 64m or 1.5g", ErrLimit)
	}
	return n, nil
}

// cpuPeriod in which a quota counts, in microseconds.
const cpuPeriod = 100000

// minQuota is the least that the kernel takes, in microseconds.
const minQuota = 1000

// parseCPUs returns the quota for a period.
func parseCPUs(s string) (int64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n > maxCPUs {
		return 0, fmt.Errorf("%w: not a number of processors such as 1.5, nor 0 for no limit", ErrLimit)
	}
	if n == 0 {
		return -1, nil
	}
	quota := int64(math.Round(n * cpuPeriod))
	if quota < minQuota {
		return 0, fmt.Errorf("%w: less than 0.01", ErrLimit)
	}
	return quota, nil
}

// maxCPUs is the most that a kernel is built for (CONFIG_NR_CPUS).
const maxCPUs = 8192
