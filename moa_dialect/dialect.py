"""The `moa` dialect: the Mathematics of Arrays and its normal forms."""

from xdsl.ir import Dialect, Operation

from moa_dialect.ops.addresses import GammaInverseOp, GammaOp, ProductOp
from moa_dialect.ops.blocks import InsertOp, PadOp
from moa_dialect.ops.computational import (
    CastOp,
    InnerOp,
    MapOp,
    OmegaOp,
    OuterOp,
    PointwiseOp,
    ReduceOp,
    ScanOp,
    WhereOp,
)
from moa_dialect.ops.normal_form import (
    AtOp,
    CascadeOp,
    ComprehensionOp,
    ExtentOp,
    FixedExtentOp,
    FoldOp,
    InBoundsOp,
    RequireOp,
    YieldOp,
)
from moa_dialect.ops.operational import BufferOp, LoadOp, LoopOp, RavOp, StoreOp
from moa_dialect.ops.rearranging import (
    CatOp,
    CompressOp,
    DropOp,
    ExpandOp,
    GradeDownOp,
    GradeUpOp,
    RavelOp,
    RecycleOp,
    ReshapeOp,
    ReverseOp,
    RotateOp,
    TakeOp,
)
from moa_dialect.ops.structural import (
    CellOp,
    ConstantOp,
    DimOp,
    IotaOp,
    PsiOp,
    ShapeOp,
    TotalOp,
    TransposeOp,
)

ALGEBRA: tuple[type[Operation], ...] = (
    ConstantOp,
    IotaOp,
    ShapeOp,
    DimOp,
    TotalOp,
    ProductOp,
    GammaOp,
    GammaInverseOp,
    PsiOp,
    CellOp,
    TakeOp,
    DropOp,
    CatOp,
    ReverseOp,
    RotateOp,
    TransposeOp,
    PadOp,
    InsertOp,
    ReshapeOp,
    RecycleOp,
    RavelOp,
    CompressOp,
    ExpandOp,
    GradeUpOp,
    GradeDownOp,
    PointwiseOp,
    MapOp,
    CastOp,
    WhereOp,
    ReduceOp,
    ScanOp,
    OuterOp,
    InnerOp,
    OmegaOp,
)
"""The array algebra: region-free operations on tensors."""

NORMAL_FORM: tuple[type[Operation], ...] = (
    ExtentOp,
    FixedExtentOp,
    RequireOp,
    InBoundsOp,
    AtOp,
    ComprehensionOp,
    FoldOp,
    CascadeOp,
    YieldOp,
)
"""The denotational normal form: index spaces with scalar bodies."""

OPERATIONAL: tuple[type[Operation], ...] = (RavOp, BufferOp, LoopOp, LoadOp, StoreOp)
"""The operational normal form: loops and flat addresses."""

Moa = Dialect("moa", [*ALGEBRA, *NORMAL_FORM, *OPERATIONAL], [])
