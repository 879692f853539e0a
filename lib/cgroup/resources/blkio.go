package resources

import (
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// blkio: weights belong to the BFQ scheduler since CFQ is gone (kernel 5.0);
// older kernels and their files are tried where its are missing.
func blkio(r *specs.LinuxResources) ([]value, error) {
	b := r.BlockIO
	if b == nil {
		return nil, nil
	}
	var values []value
	if w := number(b.Weight); w != 0 {
		values = append(values, value{
			file: "blkio.bfq.weight", text: w.String(), same: sameDefault, before: firstLine,
			instead: &value{file: "blkio.weight", text: w.String()},
		})
	}
	if w := number(b.LeafWeight); w != 0 {
		values = append(values, value{file: "blkio.leaf_weight", text: w.String()})
	}
	for _, d := range b.WeightDevice {
		if w := number(d.Weight); w != 0 {
			text := fmt.Sprintf("%d:%d %d", d.Major, d.Minor, w)
			values = append(values, value{
				file: "blkio.bfq.weight_device", text: text, same: sameLine, before: lineOr("0"),
				instead: &value{file: "blkio.weight_device", text: text, same: sameLine, before: lineOr("0")},
			})
		}
		if w := number(d.LeafWeight); w != 0 {
			text := fmt.Sprintf("%d:%d %d", d.Major, d.Minor, w)
			values = append(values, value{file: "blkio.leaf_weight_device", text: text, same: sameLine, before: lineOr("0")})
		}
	}
	for _, f := range []struct {
		file    string
		devices []specs.LinuxThrottleDevice
	}{
		{"blkio.throttle.read_bps_device", b.ThrottleReadBpsDevice},
		{"blkio.throttle.write_bps_device", b.ThrottleWriteBpsDevice},
		{"blkio.throttle.read_iops_device", b.ThrottleReadIOPSDevice},
		{"blkio.throttle.write_iops_device", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range f.devices {
			text := fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate)
			values = append(values, value{file: f.file, text: text, same: sameLine, before: lineOr("0")})
		}
	}
	return values, nil
}

// noIOMax is what io.max of a device without limits means.
const noIOMax = "rbps=max wbps=max riops=max wiops=max"

// io: io.bfq.weight counts as v1 did, io.weight (io.cost) differently.
func io(r *specs.LinuxResources) ([]value, error) {
	b := r.BlockIO
	if b == nil {
		return nil, nil
	}
	var values []value
	if w := number(b.Weight); w != 0 {
		if w < 10 || w > 1000 {
			return nil, fmt.Errorf("%w: linux.resources.blockIO.weight: %d is not within 10 to 1000", ErrInvalid, w)
		}
		values = append(values, value{
			file: "io.bfq.weight", text: w.String(), same: sameDefault, before: firstLine,
			instead: &value{file: "io.weight", text: ioWeight(w).String(), same: sameDefault, before: firstLine},
		})
	}
	for _, d := range b.WeightDevice {
		if w := number(d.Weight); w != 0 {
			values = append(values, value{
				file: "io.bfq.weight", text: fmt.Sprintf("%d:%d %d", d.Major, d.Minor, w), same: sameLine, before: lineOr("default"),
				instead: &value{file: "io.weight", text: fmt.Sprintf("%d:%d %d", d.Major, d.Minor, ioWeight(w)), same: sameLine, before: lineOr("default")},
			})
		}
	}
	for _, f := range []struct {
		key     string
		devices []specs.LinuxThrottleDevice
	}{
		{"rbps", b.ThrottleReadBpsDevice},
		{"wbps", b.ThrottleWriteBpsDevice},
		{"riops", b.ThrottleReadIOPSDevice},
		{"wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range f.devices {
			rate := utoa(d.Rate)
			if d.Rate == 0 { // v1's way to say "no limit"; io.max refuses it
				rate = "max"
			}
			text := fmt.Sprintf("%d:%d %s=%s", d.Major, d.Minor, f.key, rate)
			values = append(values, value{file: "io.max", text: text, same: sameLine, before: lineOr(noIOMax)})
		}
	}
	return values, nil
}

func blkioOnly1(r *specs.LinuxResources) (all []setting) {
	b := r.BlockIO
	if b == nil {
		return nil
	}
	if w := number(b.LeafWeight); w != 0 {
		all = append(all, setting{"blockIO.leafWeight", w, func() { b.LeafWeight = nil }})
	}
	for i := range b.WeightDevice {
		d := &b.WeightDevice[i]
		if w := number(d.LeafWeight); w != 0 {
			all = append(all, setting{"blockIO.weightDevice.leafWeight", w, func() { d.LeafWeight = nil }})
		}
	}
	return all
}

// ioWeight converts 10 to 1000 linearly to 1 to 10000, as runc and crun do.
func ioWeight(w weightNumber) weightNumber { return 1 + (w-10)*9999/990 }

// weightNumber is a weight of block I/O; 0 is not set.
type weightNumber uint64

func number(n *uint16) weightNumber {
	if n == nil {
		return 0
	}
	return weightNumber(*n)
}

func (w weightNumber) String() string { return utoa(uint64(w)) }
