#include "model/allowed_code.h"

#include <ATen/core/interned_strings.h>
#include <c10/util/Exception.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/ir.h>

#include <algorithm>
#include <array>
#include <sstream>
#include <unordered_set>
#include <vector>

namespace equistride {
namespace {

// What a model's code may call. Every operator here computes its results from its arguments and from nothing else, or
// changes those arguments: none opens a file, starts a process or a thread, prints, speaks to another machine, or takes
// an address. Overloads of one name do not differ in that.
constexpr std::array ALLOWED = {
    // Our own that networks call. Not their backwards, which autograd calls: exchange_backward takes an address.
    "equistride::atom_block equistride::atom_block_pack equistride::bond_frames equistride::bond_lengths "
    "equistride::edge_block equistride::edge_block_on_gpu equistride::edge_block_pack equistride::edge_degree "
    "equistride::edge_vectors equistride::energy_head_pack equistride::esen equistride::exchange "
    "equistride::neighbors equistride::own equistride::radial_splines equistride::spherical_norm "
    "equistride::symmetric_contraction equistride::tensor_product equistride::tensor_product_table "
    "equistride::total equistride::trajcast_layer equistride::trajcast_pack",

    // The language: values, attributes, branches, loops, calls (each callee is looked at as well), errors.
    "prim::Constant prim::GetAttr prim::SetAttr prim::CallFunction prim::CallMethod prim::CreateObject prim::Enter "
    "prim::Exit prim::If prim::Loop prim::RaiseException prim::Uninitialized prim::unchecked_cast "
    "prim::unchecked_unwrap_optional prim::isinstance prim::ListConstruct prim::ListUnpack prim::DictConstruct "
    "prim::TupleConstruct prim::TupleUnpack prim::TupleIndex prim::TupleSlice prim::NumToTensor prim::tolist",

    // Numbers, strings, lists and dictionaries.
    "prim::min prim::max prim::abs prim::StringIndex aten::Bool aten::Complex aten::Float aten::Int "
    "aten::BoolImplicit aten::FloatImplicit aten::IntImplicit aten::ScalarImplicit aten::Delete aten::__contains__ "
    "aten::__derive_index aten::__getitem__ aten::__is__ aten::__isnot__ aten::__not__ aten::__range_length "
    "aten::_set_item aten::append aten::clear aten::copy aten::count aten::dict aten::extend aten::format aten::get "
    "aten::insert aten::items aten::join aten::keys aten::len aten::list aten::pop aten::range aten::reverse "
    "aten::sorted aten::str aten::update aten::values",

    // What a tensor is.
    "prim::data prim::device prim::dtype prim::is_cpu prim::is_cuda prim::itemsize prim::layout prim::ndim "
    "prim::requires_grad prim::shape aten::dim aten::is_complex aten::is_contiguous aten::is_floating_point "
    "aten::item aten::numel aten::promote_types aten::result_type aten::size aten::stride aten::sym_numel "
    "aten::sym_size",

    // Gradients, which force fields take of themselves.
    "aten::detach aten::detach_ aten::grad aten::is_grad_enabled aten::requires_grad_ aten::set_grad_enabled",

    // New tensors.
    "aten::arange aten::empty aten::empty_like aten::eye aten::full aten::full_like aten::linspace aten::new_empty "
    "aten::new_full aten::new_ones aten::new_zeros aten::ones aten::ones_like aten::scalar_tensor aten::tensor "
    "aten::zeros aten::zeros_like",

    // Precision, place and layout.
    "aten::alias aten::clone aten::contiguous aten::copy_ aten::cpu aten::cuda aten::double aten::float aten::to "
    "aten::type_as",

    // Shapes.
    "aten::broadcast_tensors aten::broadcast_to aten::cartesian_prod aten::cat aten::chunk aten::concat "
    "aten::constant_pad_nd aten::diag "
    "aten::diag_embed aten::diagonal aten::expand aten::expand_as aten::flatten aten::flip aten::hstack aten::meshgrid "
    "aten::movedim aten::mT aten::narrow aten::numpy_T aten::pad aten::permute aten::repeat aten::repeat_interleave "
    "aten::reshape aten::reshape_as aten::roll aten::select aten::slice aten::split aten::split_with_sizes "
    "aten::squeeze aten::stack aten::swapaxes aten::t aten::tensor_split aten::tile aten::transpose aten::tril "
    "aten::triu aten::unbind aten::unflatten aten::unsqueeze aten::view aten::view_as aten::vstack",

    // By indices, which torch checks.
    "aten::embedding aten::gather aten::index aten::index_add aten::index_add_ aten::index_copy aten::index_put "
    "aten::index_put_ aten::index_select aten::masked_fill aten::masked_fill_ aten::masked_select aten::nonzero "
    "aten::one_hot aten::scatter aten::scatter_ aten::scatter_add aten::scatter_add_ aten::scatter_reduce "
    "aten::scatter_reduce_ aten::searchsorted aten::take_along_dim aten::where",

    // Element by element.
    "aten::abs aten::acos aten::acosh aten::add aten::add_ aten::addcdiv aten::addcmul aten::asin aten::asinh "
    "aten::atan aten::atan2 aten::atanh aten::ceil aten::clamp aten::clamp_ aten::clamp_max aten::clamp_min aten::cos "
    "aten::cosh aten::deg2rad aten::div aten::div_ aten::divide aten::erf aten::erfc aten::erfinv aten::exp aten::exp2 "
    "aten::expm1 aten::fill_ aten::floor aten::floor_divide aten::floordiv aten::fmax aten::fmin aten::fmod aten::frac "
    "aten::hypot aten::lerp aten::lgamma aten::log aten::log10 aten::log1p aten::log2 aten::maximum aten::minimum "
    "aten::mul aten::mul_ aten::multiply aten::nan_to_num aten::neg aten::pow aten::reciprocal aten::remainder "
    "aten::round aten::rsqrt aten::rsub aten::sigmoid aten::sign aten::sin aten::sinc aten::sinh aten::sqrt "
    "aten::special_erf aten::special_expm1 aten::square aten::sub aten::sub_ aten::subtract aten::tan aten::tanh "
    "aten::true_divide aten::trunc aten::zero_",

    // Comparisons and logic.
    "aten::__and__ aten::__or__ aten::__xor__ aten::all aten::allclose aten::any aten::bitwise_and aten::bitwise_not "
    "aten::bitwise_or aten::bitwise_xor aten::eq aten::equal aten::ge aten::gt aten::isclose aten::isfinite "
    "aten::isinf aten::isnan aten::le aten::logical_and aten::logical_not aten::logical_or aten::logical_xor aten::lt "
    "aten::ne",

    // Sums, extremes and order.
    "aten::amax aten::amin aten::argmax aten::argmin aten::argsort aten::bincount aten::cumprod aten::cumsum "
    "aten::logsumexp aten::max aten::mean aten::median aten::min aten::norm aten::prod aten::sort aten::std aten::sum "
    "aten::topk aten::unique_consecutive aten::var",

    // Linear algebra.
    "aten::addbmm aten::addmm aten::addmv aten::baddbmm aten::bmm aten::cdist aten::cross aten::det aten::dot "
    "aten::einsum aten::inverse aten::linalg_cross aten::linalg_det aten::linalg_eigh aten::linalg_inv "
    "aten::linalg_norm aten::linalg_solve aten::linalg_vector_norm aten::matmul aten::mm aten::mv aten::outer "
    "aten::tensordot aten::trace",

    // Layers of networks.
    "aten::batch_norm aten::bilinear aten::celu aten::celu_ aten::dropout aten::dropout_ aten::elu aten::elu_ "
    "aten::gelu aten::glu aten::group_norm aten::hardshrink aten::hardsigmoid aten::hardswish aten::hardtanh "
    "aten::hardtanh_ aten::instance_norm aten::layer_norm aten::leaky_relu aten::leaky_relu_ aten::linear "
    "aten::log_sigmoid aten::log_softmax aten::mish aten::prelu aten::relu aten::relu6 aten::relu_ aten::rms_norm "
    "aten::selu aten::selu_ aten::sigmoid_ aten::silu aten::silu_ aten::softmax aten::softplus aten::softshrink "
    "aten::tanh_ aten::threshold"};

const std::unordered_set<c10::Symbol> &allowed() {
    static const auto made = [] {
        std::unordered_set<c10::Symbol> symbols;
        for (const char *const group : ALLOWED) {
            std::istringstream words(group);
            for (std::string word; words >> word;)
                symbols.insert(c10::Symbol::fromQualString(word));
        }
        return symbols;
    }();
    return made;
}

[[noreturn]] void refuse(const std::string &name, const std::string &what) {
    C10_THROW_ERROR(ValueError, c10::str(name, " is not a model that may run: it ", what,
                                         "; expected operators that only compute, as docs/artifact.md says; do not "
                                         "trust this file, or export the model without that"));
}

/// Whether values of this type are objects, whose attributes lie at places that their class knows.
bool holds_objects(const c10::Type &type) {
    switch (type.kind()) {
    case c10::TypeKind::ClassType:
    case c10::TypeKind::InterfaceType:
    case c10::TypeKind::FunctionType:
    case c10::TypeKind::AnyType:
        return true;
    default:
        return std::ranges::any_of(type.containedTypes(), [](const c10::TypePtr &one) { return holds_objects(*one); });
    }
}

class Look {
public:
    Look(torch::jit::CompilationUnit &unit, const std::string &name, Native native)
        : unit_(unit), name_(name), native_(native) {}

    void all() {
        std::size_t seen = 0;
        for (auto functions = unit_.get_functions(); seen < functions.size(); functions = unit_.get_functions())
            for (; seen < functions.size(); seen++) // which may compile more of them
                function(*functions[seen]);
    }

private:
    void function(torch::jit::Function &one) {
        if (!seen_.insert(&one).second)
            return;
        if (one.name() == "__setstate__" || one.name() == "__getstate__")
            refuse(name_, c10::str("has ", one.qualname().qualifiedName(), ", which would run as the file is read"));
        if (!one.isGraphFunction())
            refuse(name_, c10::str("calls ", one.qualname().qualifiedName(), ", which is not TorchScript"));
        block(*torch::jit::toGraphFunction(one).graph()->block());
    }

    void block(const torch::jit::Block &body) {
        for (const torch::jit::Value *value : body.inputs())
            check_type(*value->type(), unit_, name_, native_);
        for (const torch::jit::Node *one : body.nodes()) {
            node(*one);
            for (const torch::jit::Block *inner : one->blocks())
                block(*inner);
        }
    }

    void node(const torch::jit::Node &one) {
        if (!allowed().contains(one.kind()))
            refuse(name_, c10::str("calls ", one.kind().toQualString()));
        for (const torch::jit::Value *value : one.outputs()) {
            check_type(*value->type(), unit_, name_, native_);
            if (const auto callee = value->type()->cast<c10::FunctionType>())
                function(*callee->function());
        }
        if (one.kind() == c10::prim::CreateObject && allows(native_, *one.output()->type()))
            refuse(name_, c10::str("makes a ", one.output()->type()->annotation_str()));
        // It believes what it is told, but for values that say themselves what they are.
        if (one.kind() == c10::prim::unchecked_cast && holds_objects(*one.output()->type())) {
            const auto optional = one.input()->type()->cast<c10::OptionalType>();
            if (!optional || *optional->getElementType() != *one.output()->type())
                refuse(name_, "takes an object for one of another class (prim::unchecked_cast)");
        }
    }

    torch::jit::CompilationUnit &unit_;
    const std::string &name_;
    const Native native_;
    std::unordered_set<const torch::jit::Function *> seen_;
};

} // namespace

// Operators outside torch's own namespace are reached by the word `ops` alone, which the compiler takes as it stands.
// While it compiles it evaluates operators on numbers and strings: torch's own are harmless, those of a library that
// happens to be loaded might not be.
void check_source(std::string_view text, const std::string &name) {
    const auto in_a_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; };
    for (std::size_t at = text.find("ops"); at != std::string_view::npos; at = text.find("ops", at + 3)) {
        const std::string_view rest = text.substr(at + 3);
        if ((at > 0 && in_a_word(text[at - 1])) || (!rest.empty() && in_a_word(rest[0])))
            continue;
        if (!rest.starts_with(".equistride.") && !rest.starts_with(".prim.") && !rest.starts_with(".aten."))
            refuse(name, c10::str("names operators of another library (ops", rest.substr(0, 24), ")"));
    }
}

// Nothing slips by: these graphs are what the interpreter runs, made by torch's own compiler, in which each name has
// become the operator, function or class that it stands for. An alias, a method of a tensor or a nested module is a
// node like any other; a function that is called is in the unit or is looked at through the call.
void check_code(torch::jit::CompilationUnit &unit, const std::string &name, Native native) {
    Look(unit, name, native).all();
}

bool allows(Native native, const c10::Type &type) {
    const auto *cls = type.castRaw<c10::ClassType>();
    return native == Native::model && cls && cls->name() &&
           cls->name()->qualifiedName() == "__torch__.torch.classes.equistride.Model";
}

void check_type(const c10::Type &type, const torch::jit::CompilationUnit &unit, const std::string &name,
                Native native) {
    switch (type.kind()) {
    case c10::TypeKind::TensorType:
    case c10::TypeKind::IntType:
    case c10::TypeKind::FloatType:
    case c10::TypeKind::BoolType:
    case c10::TypeKind::NoneType:
        return;
    case c10::TypeKind::ClassType:
        if (!allows(native, type) && type.castRaw<c10::ClassType>()->compilation_unit().get() != &unit)
            refuse(name, c10::str("uses the native class ", type.annotation_str()));
        return;
    case c10::TypeKind::CapsuleType:
    case c10::TypeKind::PyObjectType:
    case c10::TypeKind::RRefType:
    case c10::TypeKind::FutureType:
    case c10::TypeKind::AwaitType:
    case c10::TypeKind::StorageType:
    case c10::TypeKind::StreamObjType:
    case c10::TypeKind::GeneratorType:
        refuse(name, c10::str("uses the type ", type.annotation_str()));
    default:
        for (const c10::TypePtr &inner : type.containedTypes())
            check_type(*inner, unit, name, native);
    }
}

} // namespace equistride
