package fault

import (
	"fmt"
	"math/rand/v2"

	"github.com/toolboxai/relight/blob"
)

// At lets operation seq, and it alone, suffer f.
func At(seq int, f Fault) func(Op) Fault {
	return func(o Op) Fault {
		if o.Seq == seq {
			return f
		}
		return Fault{}
	}
}

// From lets every operation from seq on suffer f: a full disk stays full.
func From(seq int, f Fault) func(Op) Fault {
	return func(o Op) Fault {
		if o.Seq >= seq {
			return f
		}
		return Fault{}
	}
}

// Seeded lets each operation suffer one of faults with the given probability; the same seed gives the same decisions for
// the same sequence of operations.
func Seeded(seed uint64, probability float64, faults ...Fault) func(Op) Fault {
	r := rand.New(rand.NewPCG(seed, 0))
	return func(Op) Fault {
		if r.Float64() >= probability {
			return Fault{}
		}
		return faults[r.IntN(len(faults))]
	}
}

// Case is one run of Each: the fault that was injected and what came of it.
type Case struct {
	Op      Op
	Fault   Fault
	Err     error        // of the work
	Storage blob.Storage // what is left; without faults
}

// String is for test names: "put pack/1 (3): die late".
func (c Case) String() string {
	return fmt.Sprintf("%s %s (%d): %s", c.Op.Kind, c.Op.Name, c.Op.Seq, c.Fault.Effect)
}

// Each runs work once to learn its operations, and then once for every nth operation and every fault, each time on a storage
// that fresh makes, and hands over what came of it. work must do the same operations in the same order in each run until
// the fault strikes. Each fails if the run without faults fails, or if an operation that was counted never came.
func Each(nth int, fresh func() blob.Storage, faults []Fault, work func(blob.Storage) error, after func(Case) error) error {
	counting := New(fresh(), nil)
	if err := work(counting); err != nil {
		return fmt.Errorf("run without faults: %w", err)
	}
	ops := counting.Ops()
	for i := 0; i < len(ops); i += nth {
		for _, f := range faults {
			if err := one(fresh(), ops[i], f, work, after); err != nil {
				return err
			}
		}
	}
	return nil
}

func one(s blob.Storage, op Op, f Fault, work func(blob.Storage) error, after func(Case) error) error {
	faulty := New(s, At(op.Seq, f))
	c := Case{Op: op, Fault: f, Storage: s}
	c.Err = work(faulty)
	ops := faulty.Ops()
	if len(ops) < op.Seq || ops[op.Seq-1] != op {
		return fmt.Errorf("%s: the operation did not come again: the work is not repeatable", c)
	}
	if err := after(c); err != nil {
		return fmt.Errorf("%s: %w", c, err)
	}
	return nil
}
